import { useQueries, useQueryClient, useSuspenseInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { Trash2 } from 'lucide-react'
import { useDeferredValue, useState } from 'react'
import * as v from 'valibot'
import { callToChange } from '@/api/answer-lost'
import { call, isProblem } from '@/api/client'
import { createToolset, getToolset, replaceToolset } from '@/api/generated/toolsets'
import type { Server, Toolset } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { mcpToolsQuery } from '@/api/mcp'
import { useOnce } from '@/api/once'
import { invalidate, q, queryKey } from '@/api/queries'
import { useDenied, useForbidden } from '@/api/session'
import { serverGeneration } from '@/features/mcp/public/target'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { serversQuery } from '@/features/servers/public/queries'
import { cx } from '@/lib/cx'
import { useForm } from '@/lib/form'
import { formatNumber, formatPercent, formatTokens } from '@/lib/format'
import { type McpTool, tokensOf } from '@/lib/mcp/things'
import { nameSchema } from '@/lib/name'
import { plural, t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { DeletedNotice } from '@/ui/deleted-notice'
import { EmptyState } from '@/ui/empty-state'
import { ErrorNote } from '@/ui/error-state'
import { Textarea, TextInput } from '@/ui/inputs'
import { ButtonLink, Link } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Progress } from '@/ui/progress'
import { SearchInput } from '@/ui/search-input'
import { toast } from '@/ui/toast'
import { UnsavedChangesBar, UnsavedChangesGuard } from '@/ui/unsaved-changes-bar'
import { useWholeList } from '@/ui/use-whole-list'
import { DeleteToolset } from '../delete-toolset'
import {
  bytesOfTools,
  inOrder,
  membersOf,
  type Overrides,
  overridesOf,
  type Selection,
  searchTurn,
  selectionOf,
  stateOf,
  toolCount,
  withServer,
} from '../selection'
import { ServerTools, type ToolsOfServer } from '../server-tools'

/** The toolset's query. */
export function toolsetQuery(name: string) {
  return q(getToolset, { path: { name } })
}

const crumbs = (
  <Breadcrumbs>
    <Link to="/toolsets">{t('Toolsets')}</Link>
  </Breadcrumbs>
)

/** Makes a toolset. */
export function NewToolsetPage({ servers: first }: { servers: string[] }) {
  const navigate = useNavigate()
  const queryClient = useQueryClient()
  const [made, setMade] = useState(false)
  const once = useOnce()
  const form = useForm({
    initial: {
      name: '',
      description: '',
      members: selectionOf(first.map((server) => ({ server }))),
      overrides: overridesOf([]),
    },
    schema: v.object({
      name: nameSchema,
      description: v.pipe(v.string(), v.trim()),
      members: v.any(),
      overrides: v.any(),
    }),
    submit: async ({ name, description }, values) => {
      const body = { name, description, members: membersOf(values.members, values.overrides) }
      const toolset = await once(body, (idempotencyKey) => call(createToolset, { body }, { idempotencyKey }))
      queryClient.setQueryData(queryKey(getToolset, { path: { name } }), toolset)
      // An answer that was lost comes again as it was then.
      void invalidate(queryClient, getToolset, { path: { name } })
      void queryClient.invalidateQueries(toolsetsQuery)
      setMade(true)
      toast.done({ title: t('{name} is ready', { name }) })
      // After the guard has heard that nothing is unsaved any more.
      setTimeout(() => void navigate({ to: '/toolsets/$name', params: { name } }))
    },
    fieldOf: (field) => (field.startsWith('members') ? 'members' : field),
  })
  return (
    <form noValidate onSubmit={form.onSubmit}>
      <PageHeader breadcrumbs={crumbs} title={t('New toolset')} />
      <div className="flex min-w-0 flex-col gap-4">
        <Card title={t('About')}>
          <div className="flex flex-col gap-4">
            <TextInput
              {...form.field('name')}
              label={t('Name')}
              hint={t('It is part of the address that clients connect to, and cannot be changed later.')}
              required
              mono
              autoComplete="off"
              className="max-w-md"
            />
            <Description {...form.field('description')} />
          </div>
        </Card>
        <Chooser
          selection={form.values.members}
          onChange={(members) => form.set({ members })}
          overrides={form.values.overrides}
          onOverride={(overrides) => form.set({ overrides }, ['members'])}
          error={form.errorAt('members')}
          aside={
            <>
              <ErrorNote error={form.submitError} />
              <Button
                type="submit"
                variant="primary"
                busy={form.submitting}
                disabledReason={
                  Object.keys(form.values.members).length === 0 ? t('Choose at least one tool') : undefined
                }
              >
                {t('Create the toolset')}
              </Button>
            </>
          }
        />
      </div>
      <UnsavedChangesGuard dirty={form.dirty && !form.submitting && !made} />
    </form>
  )
}

/** Shows and changes a toolset. */
export function ToolsetPage({ name }: { name: string }) {
  const { data: toolset, error } = useSuspenseQuery(toolsetQuery(name))
  return <ToolsetEditor toolset={toolset} isDeleted={isGone(error)} />
}

function valuesOf(toolset: Toolset) {
  return {
    description: toolset.description,
    members: selectionOf(toolset.members),
    overrides: overridesOf(toolset.members),
  }
}

function ToolsetEditor({ toolset, isDeleted }: { toolset: Toolset; isDeleted: boolean }) {
  const { name } = toolset
  const navigate = useNavigate()
  const queryClient = useQueryClient()
  const denied = useDenied('toolset:manage')
  const mayCall = useForbidden('tool:call') === undefined
  const [deleting, setDeleting] = useState(false)
  const [gone, setGone] = useState(false)
  // What the form began with: a change elsewhere while something is typed here is a conflict, which saving says.
  const [base, setBase] = useState(toolset)
  const form = useForm({
    initial: valuesOf(toolset),
    schema: v.object({ description: v.pipe(v.string(), v.trim()), members: v.any(), overrides: v.any() }),
    submit: async ({ description }, values) => {
      const saved = await callToChange(
        replaceToolset,
        {
          path: { name },
          body: { name, description, members: membersOf(values.members, values.overrides) },
        },
        t('It is not known whether {name} is saved', { name }),
        { ifMatch: base.etag },
      ).catch((error: unknown) => {
        // What it is now is read at once, not only when the page hears of it.
        void invalidate(queryClient, getToolset, { path: { name } })
        throw error
      })
      queryClient.setQueryData(queryKey(getToolset, { path: { name } }), saved)
      void queryClient.invalidateQueries(toolsetsQuery)
      setBase(saved)
      form.reset(valuesOf(saved))
      toast.done({ title: t('{name} is saved', { name }) })
    },
    fieldOf: (field) => (field.startsWith('members') ? 'members' : field),
  })
  const take = () => {
    setBase(toolset)
    form.reset(valuesOf(toolset))
  }
  const deletedElsewhere = isDeleted && !gone
  // Of another toolset, that has its name now, the ETag may be the same.
  const changed = !isDeleted && (toolset.id !== base.id || toolset.etag !== base.etag) && !form.submitting
  // What saving was refused for is said by the notice.
  const isSaidAbove = (changed && isProblem(form.submitError, 412)) || (isDeleted && isGone(form.submitError))
  return (
    <form noValidate onSubmit={form.onSubmit}>
      <PageHeader
        breadcrumbs={crumbs}
        title={<span className="id text-[1.1em]">{name}</span>}
        actions={
          isDeleted ? undefined : (
            <>
              {mayCall && (
                <ButtonLink to="/playground/$name" params={{ name }}>
                  {t('Try in the playground')}
                </ButtonLink>
              )}
              <ButtonLink to="/connect/$name" params={{ name }} variant="primary">
                {t('Connect a client')}
              </ButtonLink>
            </>
          )
        }
      />
      {deletedElsewhere && (
        <div className="mb-4">
          <DeletedNotice
            leave={
              <ButtonLink to="/toolsets" size="small">
                {t('Go to the toolsets')}
              </ButtonLink>
            }
          />
        </div>
      )}
      {changed && (
        <div className="mb-4">
          <Notice
            tone="warn"
            title={t('It was changed elsewhere')}
            actions={
              <Button size="small" onClick={take}>
                {t('Show the new state')}
              </Button>
            }
          >
            {form.dirty
              ? t('What is changed here and not saved is lost with that.')
              : t('What is shown here is how it was before.')}
          </Notice>
        </div>
      )}
      <div className="flex min-w-0 flex-col gap-4">
        <Card title={t('About')}>
          <div className="grid gap-4 md:grid-cols-2">
            <Description {...form.field('description')} />
            <div className="flex min-w-0 flex-col gap-1">
              <span className="text-sm font-medium">{t('MCP path')}</span>
              <CodeBlock code={toolset.mcp_path} label={t('MCP path')} wrap />
            </div>
          </div>
        </Card>
        <Chooser
          selection={form.values.members}
          onChange={(members) => form.set({ members })}
          overrides={form.values.overrides}
          onOverride={(overrides) => form.set({ overrides }, ['members'])}
          error={form.errorAt('members')}
          disabledReason={denied}
        />
        <ErrorNote error={isSaidAbove ? undefined : form.submitError} />
        <UnsavedChangesBar
          dirty={form.dirty && !gone}
          saving={form.submitting}
          onDiscard={take}
          saveDenied={
            deletedElsewhere
              ? t('It was deleted elsewhere')
              : changed
                ? t('It was changed elsewhere: show the new state first')
                : undefined
          }
        />
        {!isDeleted && (
          <Card title={t('Delete')}>
            <div className="flex flex-wrap items-center justify-between gap-3">
              <p className="text-muted">{t('Clients lose its address at once. Its servers stay.')}</p>
              <Button
                variant="danger"
                icon={Trash2}
                disabledReason={denied}
                onClick={() => setDeleting(true)}
              >
                {t('Delete the toolset')}
              </Button>
            </div>
          </Card>
        )}
      </div>
      <DeleteToolset
        name={name}
        open={deleting}
        onOpenChange={setDeleting}
        onDeleted={() => {
          setGone(true)
          void invalidate(queryClient, getToolset, { path: { name } })
          setTimeout(() => {
            queryClient.removeQueries({ queryKey: queryKey(getToolset, { path: { name } }) })
            void queryClient.invalidateQueries(toolsetsQuery)
            void navigate({ to: '/toolsets', ignoreBlocker: true })
          })
        }}
      />
    </form>
  )
}

function Description(field: {
  id: string
  name: string
  value: string
  onValueChange: (value: string) => void
  error: string | undefined
}) {
  return (
    <Textarea
      {...field}
      label={t('Description')}
      hint={t('Clients and models see it: say what these tools are for.')}
      required={false}
      rows={2}
    />
  )
}

/** Chooses servers and tools, with what they cost in a model's context. */
function Chooser({
  selection,
  onChange,
  overrides,
  onOverride,
  error,
  disabledReason,
  aside,
}: {
  selection: Selection
  onChange: (selection: Selection) => void
  overrides: Overrides
  onOverride: (overrides: Overrides) => void
  error: string | undefined
  disabledReason?: string | undefined
  aside?: React.ReactNode
}) {
  const query = useSuspenseInfiniteQuery(serversQuery)
  const unread = useWholeList(query)
  const { data } = query
  const servers = data.pages.flatMap((page) => page.items)
  const queryClient = useQueryClient()
  // Listing tools is a use of them, which is refused to some and noted then: they are not asked for.
  const unseen = useForbidden('tool:call')
  const canBeAsked = (server: Server) => unseen === undefined && answersNow(server)
  const [search, setSearch] = useState('')
  const wanted = useDeferredValue(search).trim().toLowerCase()
  const names = Object.keys(selection)
  const [first] = useState(() => ({
    chosen: new Set(names),
    ready: new Set(servers.filter(answersNow).map((server) => server.name)),
  }))
  const [opened, setOpened] = useState<ReadonlySet<string>>(() => new Set(names.slice(0, 4)))
  // A search opens what it finds; what somebody opens or closes then holds for this search only.
  const [turned, setTurned] = useState<{ search: string; open: ReadonlyMap<string, boolean> }>()
  const turnedNow = turned?.search === wanted ? turned.open : undefined
  const missing = names.filter((name) => !servers.some((server) => server.name === name))
  // Servers that are chosen or looked into are asked for their tools; the others only when somebody searches, a few
  // at once.
  const searched = wanted === '' ? [] : inOrder(servers.filter(canBeAsked), first.chosen, first.ready)
  const { come, next } = searchTurn(
    searched,
    (server) => hasCome(queryClient.getQueryState(toolsQuery(server).queryKey)),
    SEARCHED_AT_ONCE,
  )
  const inSearch = new Set([...come, ...next].map((server) => server.name))
  const asked = servers.filter(
    (server) =>
      Object.hasOwn(selection, server.name) ||
      opened.has(server.name) ||
      turnedNow?.get(server.name) === true ||
      inSearch.has(server.name),
  )
  const answers = useQueries({
    queries: asked.map((server) => ({
      ...toolsQuery(server),
      enabled: canBeAsked(server),
    })),
  })
  const tools = new Map<string, ToolsOfServer>(
    asked.map((server, at) => [
      server.name,
      {
        tools: answers[at]?.data,
        error: answers[at]?.error ?? undefined,
        answers: answersNow(server),
        count: offeredBy(server),
        retry: () => void answers[at]?.refetch(),
      },
    ]),
  )
  const shown = inOrder(
    servers.filter(
      (server) => server.name.includes(wanted) || hasTool(tools.get(server.name)?.tools, wanted),
    ),
    first.chosen,
    first.ready,
  )
  const isFound = (name: string) =>
    wanted.length > 1 && !name.includes(wanted) && hasTool(tools.get(name)?.tools, wanted)
  const isOpen = (name: string) => turnedNow?.get(name) ?? (opened.has(name) || isFound(name))
  const turn = (name: string, open: boolean) => {
    if (wanted !== '') setTurned({ search: wanted, open: new Map(turnedNow).set(name, open) })
    else setOpened((before) => new Set(open ? [...before, name] : [...before].filter((one) => one !== name)))
  }
  return (
    <div className="grid items-start gap-4 xl:grid-cols-[minmax(0,1fr)_20rem]">
      <Card
        title={t('Tools')}
        description={t('Of each server all tools, or only chosen ones.')}
        flush
        className="min-w-0"
      >
        {unread !== null && <div className="px-pad pt-3">{unread}</div>}
        {error !== undefined && (
          <p role="alert" className="px-pad pt-3 text-sm text-bad">
            {error}
          </p>
        )}
        {disabledReason !== undefined && <p className="px-pad pt-3 text-sm text-muted">{disabledReason}</p>}
        {servers.length === 0 ? (
          <EmptyState
            title={t('No servers yet')}
            action={
              <ButtonLink to="/marketplace" variant="primary">
                {t('Find a server')}
              </ButtonLink>
            }
          >
            {t('A toolset is made of servers: deploy one first.')}
          </EmptyState>
        ) : (
          <>
            {servers.length > 5 && (
              <div className="border-b p-2">
                <SearchInput
                  label={unseen === undefined ? t('Search servers and tools') : t('Search servers')}
                  placeholder={unseen === undefined ? t('Server or tool') : t('Server')}
                  value={search}
                  onValueChange={setSearch}
                />
                {unseen === undefined && (
                  <SearchState
                    wanted={wanted}
                    come={come.length}
                    all={searched.length}
                    silent={servers.length - searched.length}
                    failed={come.filter((server) => tools.get(server.name)?.tools === undefined).length}
                  />
                )}
              </div>
            )}
            <ul>
              {missing.map((name) => (
                <li key={name} className="flex items-center justify-between gap-3 border-b px-pad py-2">
                  <span>
                    <span className="id">{name}</span>{' '}
                    <span className="text-muted">{t('is no server any more')}</span>
                  </span>
                  <Button
                    size="small"
                    disabledReason={disabledReason}
                    onClick={() => onChange(withServer(selection, name, 'none'))}
                  >
                    {t('Take out')}
                  </Button>
                </li>
              ))}
              {shown.slice(0, 200).map((server) => (
                <ServerTools
                  key={server.name}
                  server={server}
                  known={tools.get(server.name)}
                  selection={selection}
                  search={wanted}
                  open={isOpen(server.name)}
                  onOpenChange={(open) => turn(server.name, open)}
                  onChange={onChange}
                  overrides={overrides}
                  onOverride={onOverride}
                  unseen={unseen}
                  disabledReason={disabledReason}
                />
              ))}
            </ul>
            {shown.length === 0 && (
              <EmptyState title={next.length > 0 ? t('Nothing found so far') : t('Nothing fits')}>
                {next.length > 0
                  ? t('The tools of the other servers are still being searched.')
                  : unseen === undefined
                    ? t('No server and no tool has this in its name. Change the search.')
                    : t('No server has this in its name. Change the search.')}
              </EmptyState>
            )}
            {shown.length > 200 && (
              <p className="border-t px-pad py-2 text-sm text-muted">{t('Type to find the others.')}</p>
            )}
          </>
        )}
      </Card>
      {unseen === undefined ? (
        <Cost selection={selection} overrides={overrides} tools={tools} aside={aside} />
      ) : (
        <UnseenCost selection={selection} tools={tools} unseen={unseen} aside={aside} />
      )}
    </div>
  )
}

/** How many servers are asked for their tools at once by a search. */
const SEARCHED_AT_ONCE = 4

function toolsQuery(server: Server) {
  return mcpToolsQuery(server.mcp_path, serverGeneration(server))
}

/** Whether a list of tools is there, or will not come. */
function hasCome(state: { status: string } | undefined): boolean {
  return state !== undefined && state.status !== 'pending'
}

/** How far a search is, and what it cannot look at. */
function SearchState({
  wanted,
  come,
  all,
  silent,
  failed,
}: {
  wanted: string
  come: number
  all: number
  silent: number
  failed: number
}) {
  const searching = wanted !== '' && come < all
  return (
    <>
      <p role="status" className={cx('tabular text-sm text-muted', searching && 'mt-2')}>
        {searching &&
          t('Searching tools: {come} of {all} servers', {
            come: formatNumber(come),
            all: formatNumber(all),
          })}
      </p>
      {wanted !== '' && (silent > 0 || failed > 0) && !searching && (
        <p className="mt-2 text-sm text-muted">
          {plural(
            silent + failed,
            'The tools of {count} server that does not answer now are not searched.',
            'The tools of {count} servers that do not answer now are not searched.',
          )}
        </p>
      )}
    </>
  )
}

function answersNow(server: Server): boolean {
  return server.phase === 'ready' || server.phase === 'degraded'
}

/** How many tools it has, as it last told. */
function offeredBy({ instances, instance_id }: Server): number | undefined {
  const main = instances.find((instance) => instance.id === instance_id) ?? instances.at(-1)
  return main?.mcp?.tools
}

function hasTool(tools: readonly McpTool[] | undefined, wanted: string): boolean {
  return tools?.some((tool) => tool.name.toLowerCase().includes(wanted)) ?? false
}

/** What is known of a selection by somebody who may not see the tools: not what they cost. */
function UnseenCost({
  selection,
  tools,
  unseen,
  aside,
}: {
  selection: Selection
  tools: ReadonlyMap<string, ToolsOfServer>
  unseen: string
  aside: React.ReactNode
}) {
  const servers = Object.keys(selection).length
  const count = toolCount(selection, new Map([...tools].map(([name, known]) => [name, known.count])))
  return (
    <Card title={t('Context cost')} className="xl:sticky xl:top-4">
      <div className="flex flex-col gap-3">
        <p>
          {count !== undefined && `${plural(count, '{count} tool', '{count} tools')} · `}
          {plural(servers, '{count} server', '{count} servers')}
        </p>
        <p className="text-sm text-muted">
          {t('What they cost depends on what they say of themselves, which you may not see. {why}.', {
            why: unseen,
          })}
        </p>
        {aside}
      </div>
    </Card>
  )
}

/** What the selection costs, and what the same servers would cost whole. */
function Cost({
  selection,
  overrides,
  tools,
  aside,
}: {
  selection: Selection
  overrides: Overrides
  tools: ReadonlyMap<string, ToolsOfServer>
  aside: React.ReactNode
}) {
  const names = Object.keys(selection)
  const known = names.flatMap((name) => {
    const found = tools.get(name)?.tools
    return found === undefined ? [] : [{ name, found }]
  })
  const sum = (of: (one: (typeof known)[number]) => number) => known.reduce((all, one) => all + of(one), 0)
  const chosen = sum(({ name, found }) => bytesOfTools(name, found, selection[name], overrides[name]))
  const whole = sum(({ name, found }) => bytesOfTools(name, found, undefined, overrides[name]))
  const count = sum(
    ({ name, found }) =>
      found.filter((tool) => selection[name] === undefined || selection[name].includes(tool.name)).length,
  )
  const unknown = names.length - known.length
  const open = names.filter((name) => stateOf(selection, name) === 'all').length
  return (
    <Card title={t('Context cost')} className="xl:sticky xl:top-4">
      <div className="flex flex-col gap-3">
        <div aria-live="polite">
          <p className="text-2xl font-semibold tracking-[-0.01em] tabular">
            {known.length === 0 && names.length > 0
              ? t('not known')
              : t('about {tokens}', { tokens: formatTokens(tokensOf(chosen)) })}
          </p>
          <p className="text-muted">
            {known.length > 0 && `${plural(count, '{count} tool', '{count} tools')} · `}
            {plural(names.length, '{count} server', '{count} servers')}
          </p>
        </div>
        {whole > 0 && (
          <div className="flex flex-col gap-1.5">
            <Progress
              label={t('Share of what these servers offer')}
              value={chosen}
              max={whole}
              text={formatPercent(chosen / whole)}
            />
            <p className="text-sm text-muted">
              {chosen === whole
                ? t('All that these servers offer.')
                : t('{share} of the {tokens} that these servers offer.', {
                    share: formatPercent(chosen / whole),
                    tokens: formatTokens(tokensOf(whole)),
                  })}
            </p>
          </div>
        )}
        {unknown > 0 && (
          <p className="text-sm text-muted">
            {plural(
              unknown,
              'Without {count} server that does not answer now.',
              'Without {count} servers that do not answer now.',
            )}
          </p>
        )}
        {open > 0 && (
          <p className="text-sm text-muted">
            {plural(open, 'Grows when {count} server adds tools.', 'Grows when {count} servers add tools.')}
          </p>
        )}
        <p className="text-sm text-muted">
          {t(
            'An estimate: four bytes of name, description and input schema are a token. Models count differently.',
          )}
        </p>
        {aside}
      </div>
    </Card>
  )
}
