import { useSuspenseInfiniteQuery } from '@tanstack/react-query'
import { Ellipsis, Server as ServerIcon } from 'lucide-react'
import { useDeferredValue, useMemo, useState } from 'react'
import { PHASE } from '@/api/generated/enums'
import type { Phase, Server } from '@/api/generated/types'
import { useSession } from '@/api/session'
import { cx } from '@/lib/cx'
import { formatBytes, formatNumber, readableTimes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { FilterChips } from '@/ui/filter-chips'
import { ButtonLink, Link } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { Select } from '@/ui/select'
import { type Column, Table, UNTIL } from '@/ui/table'
import { TickedText } from '@/ui/ticked-text'
import { useWholeList } from '@/ui/use-whole-list'
import { ActingProvider } from '../acting'
import { BulkBar } from '../bulk'
import { memoryOf, restartsOf, toolboxesOf, toolsOf } from '../row'
import { ServerMenu } from '../server-menu'
import { phaseText, reasonText, ServerStatus } from './phase'
import { serversQuery } from './queries'

/** What the page's address says. */
export interface ServersSearch {
  search?: string | undefined
  phase?: Phase | undefined
  kind?: string | undefined
  toolbox?: string | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

const COLUMNS: ReadonlyArray<Column<Server>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.name.localeCompare(other.name),
    cell: (server) => (
      <>
        <Link
          to="/servers/$name"
          params={{ name: server.name }}
          className="id font-medium text-text hover:text-accent"
        >
          {server.name}
        </Link>
        <span className={`block text-sm ${UNTIL.xs}`}>
          <ServerStatus server={server} />
        </span>
      </>
    ),
  },
  {
    id: 'phase',
    header: t('State'),
    width: '8rem',
    compare: (one, other) => PHASE.indexOf(one.phase) - PHASE.indexOf(other.phase),
    from: 'xs',
    cell: (server) => <ServerStatus server={server} />,
  },
  {
    id: 'why',
    header: t('Why'),
    from: 'lg',
    cell: (server) => {
      const why = oneLine(readableTimes(server.message ?? '')) || reasonText(server.reason)
      return (
        <span className="text-muted" title={why}>
          <TickedText text={why} />
        </span>
      )
    },
  },
  {
    id: 'entry',
    header: t('Entry'),
    width: '20%',
    from: 'md',
    compare: (one, other) => entryText(one).localeCompare(entryText(other)),
    cell: (server) => (
      <span title={entryText(server)}>
        <Badge mono>{server.kind}</Badge>{' '}
        <span className="text-muted">{server.entry == null ? t('by address') : shortEntry(server)}</span>
      </span>
    ),
  },
  {
    id: 'toolbox',
    header: t('Toolbox'),
    width: '8rem',
    from: '2xl',
    compare: (one, other) => toolboxesOf(one).join().localeCompare(toolboxesOf(other).join()),
    cell: (server) => <span className="id text-muted">{toolboxesOf(server).join(', ') || '–'}</span>,
  },
  {
    id: 'tools',
    header: t('Tools'),
    width: '5.5rem',
    align: 'end',
    from: 'xl',
    compare: (one, other) => (toolsOf(one) ?? -1) - (toolsOf(other) ?? -1),
    cell: (server) => {
      const tools = toolsOf(server)
      return tools === undefined ? '–' : formatNumber(tools)
    },
  },
  {
    id: 'memory',
    header: t('Memory'),
    width: '6.5rem',
    align: 'end',
    from: 'md',
    compare: (one, other) => memoryOf(one) - memoryOf(other),
    cell: (server) => (memoryOf(server) === 0 ? '–' : formatBytes(memoryOf(server))),
  },
  {
    id: 'restarts',
    header: t('Restarts'),
    width: '6.75rem',
    align: 'end',
    from: '2xl',
    compare: (one, other) => restartsOf(one) - restartsOf(other),
    cell: (server) => {
      const restarts = restartsOf(server)
      return restarts === 0 ? <span className="text-faint">0</span> : formatNumber(restarts)
    },
  },
  {
    id: 'since',
    header: t('Since'),
    width: '7.25rem',
    align: 'end',
    from: 'sm',
    // What changed last is first, as with "newest".
    compare: (one, other) => other.since.localeCompare(one.since),
    cell: (server) => <RelativeTime at={server.since} className="text-muted" />,
  },
  {
    id: 'menu',
    header: t('Actions'),
    hideHeader: true,
    width: '3.5rem',
    align: 'end',
    cell: (server) => (
      <ServerMenu
        server={server}
        trigger={
          <IconButton icon={Ellipsis} label={t('Actions for {name}', { name: server.name })} size="small" />
        }
      />
    ),
  },
]

function entryText(server: Server): string {
  return server.entry == null ? server.kind : `${server.entry.name} ${server.entry.version}`
}

/** The entry without its namespace: `server-time 1.2.0`. */
function shortEntry(server: Server): string {
  return oneLine(entryText(server)).replace(/^[^/]*\//, '')
}

/** The list of servers. */
export function ServersPage({
  search,
  onSearchChange,
}: {
  search: ServersSearch
  onSearchChange: (changes: ServersSearch) => void
}) {
  const query = useSuspenseInfiniteQuery({
    ...serversQuery,
    // Memory and restarts change without an event; long lists are not small.
    refetchInterval: ({ state }) => ((state.data?.pages.length ?? 1) > 1 ? 5 * 60_000 : 30_000),
  })
  const unread = useWholeList(query)
  const { data } = query
  const servers = useMemo(() => data.pages.flatMap((page) => page.items), [data])
  const session = useSession()
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set())
  const wanted = useDeferredValue(search.search ?? '')
  const rest = servers.filter((server) => fits(server, { ...search, search: wanted, phase: undefined }))
  const shown = search.phase === undefined ? rest : rest.filter((server) => server.phase === search.phase)
  // What is not shown cannot be acted on by mistake.
  const acted = shown.filter((server) => chosen.has(server.name))
  const mayAct = session.actions.includes('server:operate') || session.actions.includes('server:delete')
  const filtered = [search.search, search.phase, search.kind, search.toolbox].some(Boolean)
  const clear = () =>
    onSearchChange({ search: undefined, phase: undefined, kind: undefined, toolbox: undefined })
  return (
    <ActingProvider>
      <PageHeader
        title={t('Servers')}
        meta={<span className="tabular text-muted">{formatNumber(servers.length)}</span>}
        actions={
          <ButtonLink to="/marketplace" variant="primary">
            {t('Deploy a server')}
          </ButtonLink>
        }
      />
      {servers.length === 0 ? (
        <Card>
          <EmptyState
            icon={ServerIcon}
            title={t('No servers yet')}
            action={
              <ButtonLink to="/marketplace" variant="primary">
                {t('Find a server')}
              </ButtonLink>
            }
          >
            {t('Choose an entry of the marketplace; Toolyard installs it, runs it and keeps it running.')}
          </EmptyState>
        </Card>
      ) : (
        <>
          {unread}
          <div className="mb-3 flex flex-wrap items-center gap-2">
            <SearchInput
              label={t('Search servers')}
              placeholder={t('Name, entry or toolbox')}
              value={search.search ?? ''}
              onValueChange={(text) => onSearchChange({ search: text || undefined })}
              className="max-sm:max-w-none!"
            />
            <Choice
              id="servers-kind"
              label={t('Kind')}
              all={t('Every kind')}
              value={search.kind}
              values={servers.map((server) => server.kind)}
              onChange={(kind) => onSearchChange({ kind })}
            />
            <Choice
              id="servers-toolbox"
              label={t('Toolbox')}
              all={t('Every toolbox')}
              value={search.toolbox}
              values={servers.flatMap(toolboxesOf)}
              onChange={(toolbox) => onSearchChange({ toolbox })}
            />
            <span className="ml-auto flex items-center gap-2 text-sm text-muted">
              <span role="status" className={cx('tabular', !filtered && 'sr-only')}>
                {filtered
                  ? t('{shown} of {all} servers', {
                      shown: formatNumber(shown.length),
                      all: formatNumber(servers.length),
                    })
                  : plural(servers.length, '{count} server', '{count} servers')}
              </span>
              {filtered && (
                <Button size="small" variant="ghost" onClick={clear}>
                  {t('Clear the filters')}
                </Button>
              )}
            </span>
          </div>
          <div className="mb-3">
            <FilterChips
              label={t('State')}
              chosen={search.phase === undefined ? [] : [search.phase]}
              options={PHASE.map((phase) => ({
                value: phase,
                label: phaseText(phase),
                count: rest.filter((server) => server.phase === phase).length,
              })).filter((option) => option.count > 0 || option.value === search.phase)}
              onChange={([phase]) => onSearchChange({ phase })}
            />
          </div>
          <Card flush className="overflow-clip">
            <Table
              label={t('Servers')}
              rows={shown}
              columns={COLUMNS}
              rowKey={(server) => server.name}
              sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
              onSortChange={({ column, descending }) =>
                onSearchChange({ sort: column, descending: descending || undefined })
              }
              {...(mayAct ? { selection: { keys: chosen, onChange: setChosen } } : {})}
              empty={
                <EmptyState
                  title={t('No server fits')}
                  action={<Button onClick={clear}>{t('Clear the filters')}</Button>}
                >
                  {t('Change the search, the state, the kind or the toolbox.')}
                </EmptyState>
              }
            />
          </Card>
          <BulkBar servers={acted} onClear={() => setChosen(new Set())} />
        </>
      )}
    </ActingProvider>
  )
}

/** A filter by a value that the servers have; absent while there is nothing to choose. */
function Choice({
  id,
  label,
  all,
  value,
  values,
  onChange,
}: {
  id: string
  label: string
  all: string
  value: string | undefined
  values: readonly string[]
  onChange: (value: string | undefined) => void
}) {
  const options = [...new Set(value === undefined ? values : [...values, value])].sort()
  if (options.length < 2 && value === undefined) return null
  return (
    <Select
      id={id}
      label={label}
      hideLabel
      className="w-36"
      value={value ?? ''}
      options={[{ value: '', label: all }, ...options.map((option) => ({ value: option, label: option }))]}
      onValueChange={(next) => onChange(next === '' ? undefined : next)}
    />
  )
}

/** Whether a server is among what the address asks for. */
export function fits(server: Server, search: ServersSearch): boolean {
  const text = (search.search ?? '').trim().toLowerCase()
  return (
    (search.phase === undefined || server.phase === search.phase) &&
    (search.kind === undefined || server.kind === search.kind) &&
    (search.toolbox === undefined || toolboxesOf(server).includes(search.toolbox)) &&
    (text === '' ||
      server.name.includes(text) ||
      (server.entry?.name ?? '').toLowerCase().includes(text) ||
      toolboxesOf(server).some((name) => name.includes(text)))
  )
}
