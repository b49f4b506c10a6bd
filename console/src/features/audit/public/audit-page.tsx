import { keepPreviousData, useInfiniteQuery } from '@tanstack/react-query'
import { Download, ScrollText } from 'lucide-react'
import { useEffect, useId, useMemo, useRef, useState } from 'react'
import { listAudit } from '@/api/generated/audit'
import type { AuditRecord } from '@/api/generated/types'
import { qPages } from '@/api/queries'
import { cx } from '@/lib/cx'
import { formatNumber } from '@/lib/format'
import { saveFile } from '@/lib/save-file'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CopyButton } from '@/ui/copy-button'
import { Drawer } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { ErrorState } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { JsonView } from '@/ui/json-view'
import { KeyValueList } from '@/ui/key-value-list'
import { LoadMore } from '@/ui/load-more'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { Select } from '@/ui/select'
import { SkeletonLines } from '@/ui/skeleton'
import { type Column, Table, UNTIL } from '@/ui/table'
import { toast } from '@/ui/toast'
import {
  AUDIT_RANGES,
  type AuditSearch,
  auditQuery,
  exactTime,
  fromLocalInput,
  isFiltered,
  rangeText,
  toLocalInput,
} from '../audit-filter'
import { jsonLines, MOST_EXPORTED, readAll } from '../export'

interface Row {
  record: AuditRecord
  open: () => void
}

function whoText(record: AuditRecord): string {
  // A part of Toolyard that did something by itself, such as `system:lost`: its name is none of a person.
  return record.actor.startsWith('system:')
    ? t('Toolyard')
    : oneLine(record.actor_display || record.actor, 120)
}

const COLUMNS: ReadonlyArray<Column<Row>> = [
  {
    id: 'at',
    header: t('When'),
    width: '7.5rem',
    cell: ({ record }) => <RelativeTime at={record.at} className="text-muted" />,
  },
  {
    id: 'actor',
    header: t('Who'),
    from: 'sm',
    cell: ({ record }) => <span title={oneLine(record.actor, 200)}>{whoText(record)}</span>,
  },
  {
    id: 'action',
    header: t('What'),
    cell: ({ record, open }) => (
      <span className="flex min-w-0 flex-wrap items-center gap-x-2">
        <button
          type="button"
          onClick={open}
          className="id min-h-6 min-w-0 truncate rounded-sm font-medium underline-offset-2 hover:text-accent hover:underline"
        >
          {oneLine(record.action, 80)}
        </button>
        <span className={`shrink-0 text-sm ${UNTIL.sm}`}>
          <Outcome outcome={record.outcome} />
        </span>
        <span className={`w-full truncate text-sm text-muted ${UNTIL.sm}`}>{whoText(record)}</span>
        <span className={`id w-full truncate text-muted ${UNTIL.xl}`} title={oneLine(record.target)}>
          {oneLine(record.target, 160)}
        </span>
      </span>
    ),
  },
  {
    id: 'target',
    header: t('To'),
    // Before that it would take the room that who and what need.
    from: 'xl',
    width: '36%',
    cell: ({ record }) => (
      <span className="id text-muted" title={oneLine(record.target)}>
        {oneLine(record.target, 160)}
      </span>
    ),
  },
  {
    id: 'outcome',
    header: t('Outcome'),
    width: '6.5rem',
    from: 'sm',
    cell: ({ record }) => <Outcome outcome={record.outcome} />,
  },
]

function Outcome({ outcome }: { outcome: string }) {
  if (outcome === 'done') return <span className="text-muted">{t('done')}</span>
  return <Badge tone="warn">{outcome === 'refused' ? t('refused') : oneLine(outcome, 20)}</Badge>
}

/** Who did what, when, and what was refused. */
export function AuditPage({
  search,
  onSearchChange,
}: {
  search: AuditSearch
  onSearchChange: (changes: AuditSearch) => void
}) {
  const { line, ...filters } = search
  const filterKey = JSON.stringify(filters)
  // A range counts from when it was chosen, so that the query keeps its key while it is looked at.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the key stands for the filters.
  const query = useMemo(() => auditQuery(filters, Date.now()), [filterKey])
  const records = useInfiniteQuery({
    ...qPages(listAudit, { query: { ...query, limit: 100 } }),
    placeholderData: keepPreviousData,
  })
  const open = useRef(onSearchChange)
  useEffect(() => {
    open.current = onSearchChange
  })
  const rows = useMemo(
    () =>
      (records.data?.pages ?? [])
        .flatMap((page) => page.items)
        .map((record): Row => ({ record, open: () => open.current({ line: record.id }) })),
    [records.data],
  )
  const opened = rows.find((row) => row.record.id === line)?.record
  const clear = () =>
    onSearchChange({
      actor: undefined,
      action: undefined,
      target: undefined,
      outcome: undefined,
      range: undefined,
      since: undefined,
      until: undefined,
    })
  return (
    <>
      <PageHeader title={t('Audit')} actions={<Export query={query} />}>
        {t('What people, keys and Toolyard itself changed, and what was refused.')}
      </PageHeader>
      <Filters search={search} onSearchChange={onSearchChange} rows={rows} onClear={clear} />
      <Card flush className="overflow-clip">
        {records.data === undefined && records.error !== null ? (
          <ErrorState
            error={records.error}
            onRetry={() => void records.refetch()}
            retrying={records.isFetching}
          />
        ) : records.data === undefined ? (
          <SkeletonLines rows count={12} />
        ) : (
          <Table
            label={t('Audit log, newest first')}
            rows={rows}
            columns={COLUMNS}
            rowKey={(row) => row.record.id}
            empty={
              isFiltered(search) ? (
                <EmptyState
                  title={t('Nothing fits')}
                  action={<Button onClick={clear}>{t('Clear the filters')}</Button>}
                >
                  {t('Who, what and to what must be written in full, such as server.create.')}
                </EmptyState>
              ) : (
                <EmptyState icon={ScrollText} title={t('Nothing happened yet')} />
              )
            }
          />
        )}
      </Card>
      {rows.length > 0 && (
        <LoadMore query={records} shown={plural(rows.length, '{count} line', '{count} lines')} />
      )}
      {opened !== undefined && (
        <Details
          record={opened}
          onClose={() => onSearchChange({ line: undefined })}
          onFilter={(changes) => onSearchChange({ ...changes, line: undefined })}
        />
      )}
    </>
  )
}

function Filters({
  search,
  onSearchChange,
  rows,
  onClear,
}: {
  search: AuditSearch
  onSearchChange: (changes: AuditSearch) => void
  rows: readonly Row[]
  onClear: () => void
}) {
  const id = useId()
  const between = search.since !== undefined || search.until !== undefined
  const seen = (of: (record: AuditRecord) => string) =>
    [...new Set(rows.map(({ record }) => of(record)))].sort()
  return (
    <search
      className={cx(
        'mb-3 grid grid-cols-2 items-end gap-2 lg:grid-cols-3',
        isFiltered(search)
          ? 'xl:grid-cols-[repeat(3,minmax(0,1fr))_8rem_12.5rem_auto]'
          : 'xl:grid-cols-[repeat(3,minmax(0,1fr))_8rem_12.5rem]',
      )}
    >
      <TextFilter
        id={`${id}actor`}
        label={t('Who')}
        placeholder={t('Email or name of a key')}
        value={search.actor}
        known={seen((record) => record.actor_display)}
        onChange={(actor) => onSearchChange({ actor })}
      />
      <TextFilter
        id={`${id}action`}
        label={t('What')}
        placeholder={t('server, or server.create')}
        value={search.action}
        known={seen((record) => record.action)}
        onChange={(action) => onSearchChange({ action })}
      />
      <TextFilter
        id={`${id}target`}
        label={t('To')}
        placeholder="server/everything"
        value={search.target}
        known={seen((record) => record.target)}
        onChange={(target) => onSearchChange({ target })}
      />
      <Select
        id={`${id}outcome`}
        label={t('Outcome')}
        value={search.outcome ?? 'all'}
        options={[
          { value: 'all', label: t('Any') },
          { value: 'done', label: t('Done') },
          { value: 'refused', label: t('Refused') },
        ]}
        onValueChange={(outcome) => onSearchChange({ outcome: outcome === 'all' ? undefined : outcome })}
      />
      <Select
        id={`${id}range`}
        label={t('When')}
        value={search.range ?? (between ? 'between' : 'all')}
        options={[
          { value: 'all', label: t('Any time') },
          ...AUDIT_RANGES.map((range) => ({ value: range, label: rangeText(range) })),
          { value: 'between', label: t('Between two times') },
        ]}
        onValueChange={(value) => {
          const range = AUDIT_RANGES.find((one) => one === value)
          const now = Date.now()
          onSearchChange({
            range,
            since: value === 'between' ? new Date(now - 86_400_000).toISOString() : undefined,
            until: value === 'between' ? new Date(now + 60_000).toISOString() : undefined,
          })
        }}
      />
      {isFiltered(search) && (
        <Button variant="ghost" onClick={onClear}>
          {t('Clear the filters')}
        </Button>
      )}
      {search.range === undefined && between && (
        <div className="col-span-full flex flex-wrap gap-2">
          <TextInput
            id={`${id}since`}
            type="datetime-local"
            label={t('From')}
            value={toLocalInput(search.since)}
            onValueChange={(text) => onSearchChange({ since: fromLocalInput(text) })}
          />
          <TextInput
            id={`${id}until`}
            type="datetime-local"
            label={t('Until')}
            value={toLocalInput(search.until)}
            onValueChange={(text) => onSearchChange({ until: fromLocalInput(text) })}
          />
        </div>
      )}
    </search>
  )
}

/** A pause in typing after which a filter takes effect. */
const TYPED_MS = 400

/** A filter that takes effect a moment after the last letter; at once with Enter, a suggestion, or when it is left. */
function TextFilter({
  id,
  label,
  placeholder,
  value,
  known,
  onChange,
}: {
  id: string
  label: string
  placeholder: string
  value: string | undefined
  known: readonly string[]
  onChange: (value: string | undefined) => void
}) {
  const [typed, setTyped] = useState<string>()
  const pause = useRef<ReturnType<typeof setTimeout>>(undefined)
  useEffect(() => () => clearTimeout(pause.current), [])
  const commit = (text = typed) => {
    clearTimeout(pause.current)
    setTyped(undefined)
    if (text !== undefined) apply(text)
  }
  // What is typed stays as it is while it takes effect.
  const apply = (text: string) => {
    const next = text.trim() || undefined
    if (next !== value) onChange(next)
  }
  return (
    <div className="max-lg:col-span-2">
      <TextInput
        id={id}
        label={label}
        placeholder={placeholder}
        autoComplete="off"
        spellCheck={false}
        list={`${id}-known`}
        value={typed ?? value ?? ''}
        onValueChange={(text) => {
          clearTimeout(pause.current)
          if (known.includes(text) || text === '') return commit(text)
          setTyped(text)
          pause.current = setTimeout(() => apply(text), TYPED_MS)
        }}
        onBlur={() => commit()}
        onKeyDown={(event) => {
          if (event.key === 'Enter') commit()
        }}
      />
      <datalist id={`${id}-known`}>
        {known.slice(0, 100).map((one) => (
          <option key={one} value={oneLine(one, 200)} />
        ))}
      </datalist>
    </div>
  )
}

function Details({
  record,
  onClose,
  onFilter,
}: {
  record: AuditRecord
  onClose: () => void
  onFilter: (changes: AuditSearch) => void
}) {
  return (
    <Drawer
      open
      onOpenChange={(open) => !open && onClose()}
      title={<span className="id">{oneLine(record.action, 120)}</span>}
      description={exactTime(record.at)}
      footer={
        <CopyButton text={() => JSON.stringify(record, null, 2)} size="medium">
          {t('Copy as JSON')}
        </CopyButton>
      }
    >
      <KeyValueList
        items={[
          [
            t('Who'),
            <span key="who">
              {whoText(record)}
              <code className="id block text-muted">{oneLine(record.actor, 200)}</code>
            </span>,
          ],
          [
            t('To'),
            <code key="target" className="id">
              {oneLine(record.target, 300)}
            </code>,
          ],
          [t('Outcome'), <Outcome key="outcome" outcome={record.outcome} />],
          [
            t('Request'),
            record.request_id == null ? undefined : (
              <span key="request" className="flex items-center gap-1">
                <code className="id min-w-0 truncate">{oneLine(record.request_id, 100)}</code>
                <CopyButton text={record.request_id} label={t('Copy the request id')} />
              </span>
            ),
          ],
        ]}
      />
      <div className="my-4 flex flex-wrap gap-2">
        <Button size="small" onClick={() => onFilter({ actor: record.actor_display || record.actor })}>
          {t('Only by them')}
        </Button>
        <Button size="small" onClick={() => onFilter({ target: record.target })}>
          {t('Only about this')}
        </Button>
        <Button size="small" onClick={() => onFilter({ action: record.action })}>
          {t('Only this action')}
        </Button>
      </div>
      <h3 className="mb-1 text-sm font-medium">{t('Detail')}</h3>
      <JsonView value={record.detail} label={t('Detail')} />
    </Drawer>
  )
}

/** Saves every line that fits the filters, also those that are not loaded. */
function Export({ query }: { query: ReturnType<typeof auditQuery> }) {
  const [count, setCount] = useState<number>()
  const reading = useRef<AbortController>(undefined)
  useEffect(() => () => reading.current?.abort(), [])
  const save = async () => {
    const abort = new AbortController()
    reading.current = abort
    setCount(0)
    try {
      const { lines, complete } = await readAll(query, abort.signal, setCount)
      saveFile(`audit-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}Z.jsonl`, jsonLines(lines))
      toast.done({
        title: plural(lines.length, '{count} line is saved', '{count} lines are saved'),
        ...(complete
          ? {}
          : {
              description: t('these are the newest {most}; choose a shorter time for the others', {
                most: formatNumber(MOST_EXPORTED),
              }),
            }),
      })
    } catch (error) {
      if (!abort.signal.aborted) toast.problem(t('The lines could not be read'), error)
    } finally {
      if (!abort.signal.aborted) setCount(undefined)
    }
  }
  return (
    <Button icon={Download} busy={count !== undefined} onClick={() => void save()}>
      {count === undefined || count === 0
        ? t('Export as JSON lines')
        : plural(count, '{count} line', '{count} lines')}
    </Button>
  )
}
