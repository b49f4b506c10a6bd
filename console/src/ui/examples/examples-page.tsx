import { Box, MoreHorizontal, Pencil, Play, Plus, Square, Trash2 } from 'lucide-react'
import { lazy, type ReactNode, Suspense, useState } from 'react'
import { t } from '@/lib/t'
import { AnsiText } from '../ansi-text'
import { Badge } from '../badge'
import { Boundary } from '../boundary'
import { Button, IconButton } from '../button'
import { Card } from '../card'
import { CheckList } from '../check-list'
import { CodeBlock } from '../code-block'
import { Combobox } from '../combobox'
import { CopyButton } from '../copy-button'
import { ConfirmDialog, Dialog, Drawer } from '../dialog'
import { DiffView } from '../diff-view'
import { EmptyState } from '../empty-state'
import { ErrorNote, ErrorState } from '../error-state'
import { FilterChips } from '../filter-chips'
import { NumberInput, PasswordInput, Textarea, TextInput } from '../inputs'
import { JsonView } from '../json-view'
import { Kbd } from '../kbd'
import { KeyValueList } from '../key-value-list'
import { LetterTile } from '../letter-tile'
import { ExternalLink, Link } from '../link'
import { Markdown } from '../markdown'
import { Menu } from '../menu'
import { Notice } from '../notice'
import { PageHeader } from '../page-header'
import { Panel } from '../panel'
import { Popover } from '../popover'
import { Meter, Progress } from '../progress'
import { Elapsed, RelativeTime } from '../relative-time'
import { SearchInput } from '../search-input'
import { Select } from '../select'
import { Skeleton, SkeletonLines } from '../skeleton'
import { SparkLine } from '../spark-line'
import { Status } from '../status'
import { type Column, type Sort, Table } from '../table'
import { Tabs } from '../tabs'
import { Timeline } from '../timeline'
import { toast } from '../toast'
import { Checkbox, RadioGroup, Switch } from '../toggles'
import { Tooltip } from '../tooltip'
import { VirtualList } from '../virtual-list'

const Chart = lazy(() => import('../chart').then((module) => ({ default: module.Chart })))

const PROBLEM = Object.assign(new Error('problem'), {
  title: 'no such thing',
  detail: 'server `everything` does not exist',
  code: 'not_found',
  requestId: '00000000-0000-7000-8000-000000000000',
})

/** Every component in every state. The texts are about the components: nothing here is data. */
export function ExamplesPage() {
  return (
    <>
      <PageHeader title={t('Design')} meta={<Badge>{t('examples')}</Badge>}>
        {t('Every component of the console in every state.')}
      </PageHeader>
      <div className="grid items-start gap-4 xl:grid-cols-2">
        <Buttons />
        <States />
        <Inputs />
        <Toggles />
        <Windows />
        <Messages />
        <Waiting />
        <Tables />
        <Texts />
        <Numbers />
        <Happening />
        <Navigation />
      </div>
    </>
  )
}

function Row({ children }: { children: ReactNode }) {
  return <div className="flex flex-wrap items-center gap-2">{children}</div>
}

function Stack({ children }: { children: ReactNode }) {
  return <div className="flex flex-col gap-4">{children}</div>
}

function Buttons() {
  return (
    <Card title={t('Buttons')}>
      <Stack>
        <Row>
          <Button variant="primary" icon={Plus}>
            {t('Primary')}
          </Button>
          <Button>{t('Secondary')}</Button>
          <Button variant="ghost">{t('Ghost')}</Button>
          <Button variant="danger">{t('Danger')}</Button>
        </Row>
        <Row>
          <Button size="small" variant="primary">
            {t('Small')}
          </Button>
          <Button size="small" icon={Play}>
            {t('With an icon')}
          </Button>
          <Button busy>{t('Busy')}</Button>
          <Button variant="primary" disabledReason={t('Your role does not allow this')}>
            {t('Not allowed')}
          </Button>
        </Row>
        <Row>
          <IconButton icon={Pencil} label={t('Rename')} />
          <IconButton icon={Pencil} label={t('Rename, small')} size="small" />
          <IconButton icon={Trash2} label={t('Remove')} disabledReason={t('it is in use')} />
          <CopyButton text="copied" label={t('Copy this')} />
          <CopyButton text="copied">{t('Copy')}</CopyButton>
          <Link to="/">{t('A link')}</Link>
          <ExternalLink href="https://example.com/">{t('A link out')}</ExternalLink>
        </Row>
      </Stack>
    </Card>
  )
}

function States() {
  return (
    <Card title={t('States and badges')}>
      <Stack>
        <Row>
          <Status kind="good">{t('Ready')}</Status>
          <Status kind="working">{t('Starting')}</Status>
          <Status kind="waiting">{t('Pending')}</Status>
          <Status kind="off">{t('Stopped')}</Status>
          <Status kind="warn">{t('Degraded')}</Status>
          <Status kind="bad">{t('Failed')}</Status>
          <Status kind="unknown">{t('Unknown')}</Status>
        </Row>
        <Row>
          <Badge>{t('neutral')}</Badge>
          <Badge tone="accent">{t('accent')}</Badge>
          <Badge tone="good">{t('good')}</Badge>
          <Badge tone="warn">{t('warn')}</Badge>
          <Badge tone="bad">{t('bad')}</Badge>
          <Badge tone="info">{t('info')}</Badge>
          <Badge mono>1.4.0</Badge>
          <LetterTile name={t('Example')} />
          <LetterTile name={t('Other')} large />
          <Kbd>g</Kbd>
        </Row>
        <Row>
          <RelativeTime at={new Date(Date.now() - 3 * 60_000)} />
          <Elapsed since={new Date(Date.now() - 42_000)} />
          <Tooltip text={t('A few words about it')}>
            <button type="button" className="underline decoration-dotted">
              {t('with a tooltip')}
            </button>
          </Tooltip>
        </Row>
      </Stack>
    </Card>
  )
}

const FRUIT = [
  'apple',
  'apricot',
  'banana',
  'cherry',
  'fig',
  'lemon',
  'lime',
  'mango',
  'peach',
  'pear',
  'plum',
]

function Inputs() {
  const [text, setText] = useState('')
  const [search, setSearch] = useState('')
  const [fruit, setFruit] = useState('')
  const [size, setSize] = useState('small')
  return (
    <Card title={t('Fields')}>
      <div className="grid gap-4 sm:grid-cols-2">
        <TextInput
          id="example-name"
          label={t('Text')}
          hint={t('What it is for')}
          value={text}
          onValueChange={setText}
        />
        <TextInput
          id="example-bad"
          label={t('With an error')}
          error={t('may use only a-z, 0-9 and -')}
          value={text}
          onValueChange={setText}
          mono
        />
        <PasswordInput
          id="example-secret"
          label={t('Secret')}
          required={false}
          value={text}
          onValueChange={setText}
        />
        <NumberInput
          id="example-number"
          label={t('Number')}
          unit="MiB"
          value={text}
          onValueChange={setText}
        />
        <Select
          id="example-select"
          label={t('One of a few')}
          value={size}
          onValueChange={setSize}
          options={[
            { value: 'small', label: t('Small') },
            { value: 'large', label: t('Large') },
          ]}
        />
        <Combobox
          id="example-combobox"
          label={t('One of many')}
          placeholder={t('Type to find')}
          value={fruit}
          onValueChange={setFruit}
          options={FRUIT.map((value) => ({ value, label: value }))}
        />
        <TextInput
          id="example-off"
          label={t('Not to be changed')}
          value={t('fixed')}
          onValueChange={setText}
          disabled
        />
        <SearchInput label={t('Search')} value={search} onValueChange={setSearch} />
        <Textarea
          id="example-area"
          label={t('Several lines')}
          value={text}
          onValueChange={setText}
          className="sm:col-span-2"
        />
      </div>
    </Card>
  )
}

function Toggles() {
  const [on, setOn] = useState(true)
  const [one, setOne] = useState('first')
  const [chips, setChips] = useState<string[]>(['first'])
  return (
    <Card title={t('Choices')}>
      <Stack>
        <Checkbox
          label={t('A check box')}
          hint={t('Takes effect when the form is sent')}
          value={on}
          onValueChange={setOn}
        />
        <Checkbox
          label={t('Not to be changed')}
          value
          disabledReason={t('Your role does not allow this')}
          onValueChange={setOn}
        />
        <Checkbox
          label={t('With an error')}
          error={t('must be agreed to')}
          value={false}
          onValueChange={setOn}
        />
        <Switch label={t('A switch')} hint={t('Takes effect at once')} value={on} onValueChange={setOn} />
        <RadioGroup
          label={t('One of a few')}
          value={one}
          onValueChange={setOne}
          options={[
            { value: 'first', label: t('First'), hint: t('What it means') },
            { value: 'second', label: t('Second') },
            { value: 'third', label: t('Third'), disabledReason: t('not here') },
          ]}
        />
        <CheckList
          label={t('Any number of many')}
          value={chips}
          onValueChange={setChips}
          options={[
            { value: 'first', label: t('First'), hint: t('What it means') },
            { value: 'second', label: t('Second') },
            { value: 'third', label: t('Third'), disabledReason: t('not here') },
          ]}
        />
        <FilterChips
          label={t('Filters')}
          multiple
          chosen={chips}
          onChange={setChips}
          options={[
            { value: 'first', label: t('First'), count: 12 },
            { value: 'second', label: t('Second'), count: 3 },
            { value: 'third', label: t('Third') },
          ]}
        />
      </Stack>
    </Card>
  )
}

function Windows() {
  const [open, setOpen] = useState<string>()
  const change = (next: boolean) => !next && setOpen(undefined)
  const refuse = () => new Promise((_, reject) => setTimeout(() => reject(PROBLEM), 400))
  return (
    <Card title={t('Windows and menus')}>
      <Row>
        <Button onClick={() => setOpen('dialog')}>{t('Dialog')}</Button>
        <Button onClick={() => setOpen('drawer')}>{t('Drawer')}</Button>
        <Button onClick={() => setOpen('confirm')}>{t('Confirmation')}</Button>
        <Button onClick={() => setOpen('typed')}>{t('Typed confirmation')}</Button>
        <Popover trigger={<Button>{t('Popover')}</Button>} title={t('A popover')}>
          {t('Something small that opens at a button.')}
        </Popover>
        <Menu
          align="start"
          trigger={<IconButton icon={MoreHorizontal} label={t('More')} />}
          items={[
            { label: t('Start'), icon: Play, onSelect: () => toast.done({ title: t('Chosen') }) },
            {
              label: t('Stop'),
              icon: Square,
              onSelect: () => undefined,
              disabledReason: t('it does not run'),
            },
            { label: t('Delete'), icon: Trash2, onSelect: () => undefined, danger: true, separated: true },
          ]}
        />
      </Row>
      <Dialog
        open={open === 'dialog'}
        onOpenChange={change}
        title={t('A dialog')}
        description={t('Escape closes it, and the focus goes back to where it was.')}
        footer={<Button onClick={() => setOpen(undefined)}>{t('Close it')}</Button>}
      >
        {t('What it is about.')}
      </Dialog>
      <Drawer open={open === 'drawer'} onOpenChange={change} title={t('A drawer')}>
        {t('Details beside the list that they belong to.')}
      </Drawer>
      <ConfirmDialog
        open={open === 'confirm'}
        onOpenChange={change}
        title={t('Stop the example?')}
        confirm={t('Stop')}
        onConfirm={refuse}
      >
        {t('What follows from it. This one is refused after a moment.')}
      </ConfirmDialog>
      <ConfirmDialog
        open={open === 'typed'}
        onOpenChange={change}
        title={t('Delete the example?')}
        confirm={t('Delete')}
        danger
        typeToConfirm="example"
        onConfirm={() => Promise.resolve()}
      >
        {t('This cannot be undone.')}
      </ConfirmDialog>
    </Card>
  )
}

function Messages() {
  return (
    <Card title={t('Messages')}>
      <Stack>
        <Row>
          <Button onClick={() => toast.done({ title: t('Done'), description: t('What was done') })}>
            {t('Toast: done')}
          </Button>
          <Button onClick={() => toast.note({ title: t('A note') })}>{t('Toast: note')}</Button>
          <Button onClick={() => toast.problem(t('Could not do it'), PROBLEM)}>{t('Toast: failed')}</Button>
        </Row>
        <Notice title={t('A notice')}>{t('Something to know about what is below.')}</Notice>
        <Notice tone="warn">{t('A warning in one line.')}</Notice>
        <Notice
          tone="bad"
          title={t('Something is wrong')}
          actions={<Button size="small">{t('Repair')}</Button>}
        >
          {t('And what can be done.')}
        </Notice>
        <ErrorNote error={PROBLEM} />
        <div className="rounded-lg border">
          <ErrorState error={PROBLEM} onRetry={() => undefined} />
        </div>
        <div className="rounded-lg border">
          <Boundary where="examples">
            <Broken />
          </Boundary>
        </div>
      </Stack>
    </Card>
  )
}

function Broken(): ReactNode {
  throw new Error(t('this component fails, and only its own part of the page shows it'))
}

const NEVER = { data: undefined, error: null, isPending: true, isFetching: true, refetch: () => undefined }
const REFUSED = { ...NEVER, error: PROBLEM, isPending: false, isFetching: false }
const NOTHING = { ...NEVER, data: [] as string[], isPending: false, isFetching: false } // as: an empty list has no type of its own

function Waiting() {
  return (
    <Card title={t('Loading and empty')}>
      <Stack>
        <Row>
          <Skeleton className="h-5 w-40" />
          <Skeleton className="h-5 w-20" />
        </Row>
        <div className="rounded-lg border">
          <SkeletonLines count={3} rows />
        </div>
        <Progress label={t('Known')} value={0.6} />
        <Progress label={t('Not known')} />
        <Panel title={t('A panel that loads')} query={NEVER}>
          {() => null}
        </Panel>
        <Panel title={t('A panel that failed')} query={REFUSED}>
          {() => null}
        </Panel>
        <Panel
          title={t('A panel without content')}
          query={NOTHING}
          flush
          isEmpty={(list) => list.length === 0}
          empty={
            <EmptyState
              icon={Box}
              title={t('Nothing yet')}
              action={<Button icon={Plus}>{t('Make one')}</Button>}
            >
              {t('What would be here.')}
            </EmptyState>
          }
        >
          {() => null}
        </Panel>
      </Stack>
    </Card>
  )
}

interface ExampleRow {
  name: string
  size: number
}

const ROWS: readonly ExampleRow[] = Array.from({ length: 200 }, (_, index) => ({
  name: `row-${index + 1}`,
  size: (index * 37) % 101,
}))
const COLUMNS: ReadonlyArray<Column<ExampleRow>> = [
  {
    id: 'name',
    header: t('Name'),
    cell: (row) => <span className="id">{row.name}</span>,
    compare: (one, other) => one.name.localeCompare(other.name),
  },
  {
    id: 'size',
    header: t('Size'),
    align: 'end',
    width: '8rem',
    cell: (row) => row.size,
    compare: (one, other) => one.size - other.size,
  },
]

function Tables() {
  const [sort, setSort] = useState<Sort>({ column: 'name', descending: false })
  const [keys, setKeys] = useState<ReadonlySet<string>>(new Set(['row-2']))
  return (
    <Card title={t('Tables')} flush>
      <Table
        label={t('A table')}
        rows={ROWS.slice(0, 5)}
        columns={COLUMNS}
        rowKey={(row) => row.name}
        sort={sort}
        onSortChange={setSort}
        selection={{ keys, onChange: setKeys }}
      />
      <div className="border-t p-pad">
        <VirtualList
          items={ROWS}
          itemKey={(row) => row.name}
          label={t('A long list')}
          className="h-40 rounded-md border bg-sunken p-2"
        >
          {(row) => <div className="id">{row.name}</div>}
        </VirtualList>
      </div>
    </Card>
  )
}

const OLD = '{\n  "version": "1.0.0",\n  "memory": 256,\n  "replicas": 1\n}'
const NEW = '{\n  "version": "1.1.0",\n  "memory": 256,\n  "replicas": 2\n}'

const MARKDOWN = [
  '## Markdown of strangers',
  'It has **bold** and *emphasis*, `code`, [a link](https://example.com/) and [none](javascript:alert(1)).',
  '- an item\n- another one\n  - inside of it',
  '| a | b |\n| --- | --- |\n| 1 | 2 |',
  '<b>HTML stays text</b>',
].join('\n\n')

function Texts() {
  return (
    <Card title={t('Texts')}>
      <Stack>
        <KeyValueList
          items={[
            [
              t('Name'),
              <span key="name" className="id">
                example
              </span>,
            ],
            [t('Description'), t('A fact may be as long as it needs to be, and then it wraps.')],
            [t('Absent'), undefined],
          ]}
        />
        <Markdown text={MARKDOWN} />
        <CodeBlock label={t('A command')} code="toolyard servers list --output json" />
        <JsonView
          label={t('A JSON value')}
          value={{ text: 'text\u202eevil', number: 1, list: [true, null], nested: { empty: {} } }}
        />
        <DiffView label={t('A comparison')} before={OLD} after={NEW} />
        <pre className="id rounded-md border bg-sunken p-3">
          <AnsiText
            line={
              '\u001b[32minfo\u001b[0m ready \u001b[1;31merror\u001b[0m \u001b[33mwarn\u001b[0m \u001b]0;title\u0007plain'
            }
          />
        </pre>
      </Stack>
    </Card>
  )
}

const SINCE = 1_760_000_000
const TIMES = Array.from({ length: 60 }, (_, index) => SINCE + index * 60)
const WAVE = TIMES.map((_, index) => 40 + Math.round(30 * Math.sin(index / 6)))
const LOW = TIMES.map((_, index) => (index % 9 === 0 ? 6 : 1))

function Numbers() {
  return (
    <Card title={t('Numbers')}>
      <Stack>
        <Meter label={t('Little of a limit')} value={120} max={512} text={t('120 of 512')} />
        <Meter label={t('Nearly all of it')} value={480} max={512} text={t('480 of 512')} />
        <SparkLine label={t('The shape of a wave')} values={WAVE} className="w-40" />
        <Suspense fallback={<Skeleton className="h-[208px]" />}>
          <Chart
            label={t('Two waves')}
            times={TIMES}
            series={[
              { label: t('First'), values: WAVE, tone: 'accent', fill: true },
              { label: t('Second'), values: LOW, tone: 'bad' },
            ]}
          />
        </Suspense>
      </Stack>
    </Card>
  )
}

function Happening() {
  return (
    <Card title={t('Timeline')}>
      <Timeline
        label={t('Steps')}
        steps={[
          { id: '1', kind: 'done', title: t('It was asked for'), at: '2026-01-01T10:00:00Z' },
          { id: '2', kind: 'warn', title: t('It took long'), at: '2026-01-01T10:00:09Z' },
          {
            id: '3',
            kind: 'bad',
            title: t('A try failed'),
            detail: t('Why it failed'),
            at: '2026-01-01T10:00:12Z',
          },
          { id: '4', kind: 'working', title: t('It is tried again'), at: '2026-01-01T10:00:13Z' },
          { id: '5', kind: 'waiting', title: t('It is ready') },
        ]}
      />
    </Card>
  )
}

function Navigation() {
  const [tab, setTab] = useState('first')
  return (
    <Card title={t('Tabs')}>
      <Tabs
        label={t('Views')}
        value={tab}
        onValueChange={setTab}
        tabs={[
          { value: 'first', label: t('First'), content: t('What the first one shows.') },
          { value: 'second', label: t('Second'), content: t('What the second one shows.') },
        ]}
      />
    </Card>
  )
}
