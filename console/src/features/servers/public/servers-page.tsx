import { useSuspenseInfiniteQuery } from '@tanstack/react-query'
import { Server as ServerIcon } from 'lucide-react'
import { useDeferredValue, useEffect } from 'react'
import { PHASE } from '@/api/generated/enums'
import type { Phase, Server } from '@/api/generated/types'
import { formatBytes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { Select } from '@/ui/select'
import { type Column, Table } from '@/ui/table'
import { PhaseStatus, phaseText, reasonText } from './phase'
import { serversQuery } from './queries'

/** What the page's address says. */
export interface ServersSearch {
  search?: string | undefined
  phase?: Phase | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

const COLUMNS: ReadonlyArray<Column<Server>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.name.localeCompare(other.name),
    cell: (server) => <span className="id font-medium">{server.name}</span>,
  },
  {
    id: 'phase',
    header: t('State'),
    width: '8.5rem',
    compare: (one, other) => PHASE.indexOf(one.phase) - PHASE.indexOf(other.phase),
    cell: (server) => <PhaseStatus phase={server.phase} />,
  },
  {
    id: 'why',
    header: t('Why'),
    from: 'lg',
    cell: (server) => (
      <span className="text-muted">{oneLine(server.message) || reasonText(server.reason)}</span>
    ),
  },
  {
    id: 'kind',
    header: t('Kind'),
    width: '6rem',
    from: 'sm',
    cell: (server) => <Badge mono>{server.kind}</Badge>,
  },
  {
    id: 'memory',
    header: t('Memory'),
    width: '7rem',
    align: 'end',
    from: 'md',
    compare: (one, other) => memory(one) - memory(other),
    cell: (server) => (memory(server) === 0 ? '–' : formatBytes(memory(server))),
  },
  {
    id: 'since',
    header: t('Since'),
    width: '8rem',
    align: 'end',
    from: 'sm',
    compare: (one, other) => one.since.localeCompare(other.since),
    cell: (server) => <RelativeTime at={server.since} className="text-muted" />,
  },
]

function memory(server: Server): number {
  return server.instances.reduce((sum, instance) => sum + (instance.usage?.memory_bytes ?? 0), 0)
}

/** The list of servers. */
export function ServersPage({
  search,
  onSearchChange,
}: {
  search: ServersSearch
  onSearchChange: (changes: ServersSearch) => void
}) {
  const { data, hasNextPage, isFetchingNextPage, fetchNextPage } = useSuspenseInfiniteQuery(serversQuery)
  // The rest of the list is read at once: search and order are over all of it.
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage()
  }, [hasNextPage, isFetchingNextPage, fetchNextPage])
  const servers = data.pages.flatMap((page) => page.items)
  const wanted = useDeferredValue(search.search ?? '').toLowerCase()
  const shown = servers.filter(
    (server) =>
      (search.phase === undefined || server.phase === search.phase) &&
      (wanted === '' ||
        server.name.includes(wanted) ||
        (server.entry?.name ?? '').toLowerCase().includes(wanted)),
  )
  return (
    <>
      <PageHeader title={t('Servers')} meta={<span className="tabular text-muted">{servers.length}</span>} />
      {servers.length === 0 ? (
        <Card>
          <EmptyState icon={ServerIcon} title={t('No servers yet')}>
            {t('A server comes from an entry of the catalog, or is registered by its address.')}
          </EmptyState>
        </Card>
      ) : (
        <>
          <div className="mb-3 flex flex-wrap items-center gap-2">
            <SearchInput
              label={t('Search servers')}
              value={search.search ?? ''}
              onValueChange={(text) => onSearchChange({ search: text || undefined })}
            />
            <Select
              id="servers-phase"
              label={t('State')}
              hideLabel
              className="w-40"
              value={search.phase ?? 'all'}
              options={[
                { value: 'all', label: t('Every state') },
                ...PHASE.map((phase) => ({ value: phase, label: phaseText(phase) })),
              ]}
              onValueChange={(phase) => onSearchChange({ phase: phase === 'all' ? undefined : phase })}
            />
            <span className="ml-auto text-sm text-muted" role="status">
              {plural(shown.length, '{count} server', '{count} servers')}
            </span>
          </div>
          <Card flush>
            <Table
              label={t('Servers')}
              rows={shown}
              columns={COLUMNS}
              rowKey={(server) => server.name}
              sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
              onSortChange={({ column, descending }) =>
                onSearchChange({ sort: column, descending: descending || undefined })
              }
              empty={
                <EmptyState title={t('No server fits')}>{t('Change the search or the state.')}</EmptyState>
              }
            />
          </Card>
        </>
      )}
    </>
  )
}
