import { useQuery } from '@tanstack/react-query'
import { CircleCheck, Server as ServerIcon } from 'lucide-react'
import { listServers, type Server } from '@/api/generated/servers'
import { listToolboxes } from '@/api/generated/toolboxes'
import { q } from '@/api/queries'
import { PhaseStatus, reasonText } from '@/features/servers/public/phase'
import { formatNumber } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { EmptyState } from '@/ui/empty-state'
import { Link } from '@/ui/link'
import { PageHeader } from '@/ui/page-header'
import { Panel } from '@/ui/panel'
import { RelativeTime } from '@/ui/relative-time'
import { Status } from '@/ui/status'

/** What runs, and what is broken and why. */
export function OverviewPage() {
  const servers = useQuery(q(listServers, { query: { limit: 500 } }))
  const toolboxes = useQuery(q(listToolboxes, {}))
  return (
    <>
      <PageHeader title={t('Overview')} />
      <div className="grid gap-4 lg:grid-cols-[minmax(0,2fr)_minmax(0,1fr)]">
        <Panel
          title={t('Needs a look')}
          query={servers}
          flush
          isEmpty={(page) => page.items.length === 0}
          empty={<EmptyState icon={ServerIcon} title={t('No servers yet')} />}
        >
          {(page) => <Troubled servers={page.items.filter(inTrouble)} all={page.items.length} />}
        </Panel>
        <Panel title={t('Toolboxes')} query={toolboxes} flush>
          {(page) => (
            <ul>
              {page.items.map((toolbox) => (
                <li
                  key={toolbox.id}
                  className="flex min-h-row items-center justify-between gap-3 border-b px-pad last:border-b-0"
                >
                  <span className="id truncate">{toolbox.name}</span>
                  <Status
                    kind={
                      toolbox.state === 'online'
                        ? 'good'
                        : toolbox.state === 'unreachable'
                          ? 'bad'
                          : 'waiting'
                    }
                  >
                    {toolbox.state}
                  </Status>
                </li>
              ))}
            </ul>
          )}
        </Panel>
      </div>
    </>
  )
}

function inTrouble(server: Server): boolean {
  return server.phase === 'failed' || server.phase === 'degraded'
}

function Troubled({ servers, all }: { servers: Server[]; all: number }) {
  if (servers.length === 0) {
    return (
      <EmptyState
        icon={CircleCheck}
        title={t('All {count} servers are well', { count: formatNumber(all) })}
      />
    )
  }
  return (
    <ul>
      {servers.map((server) => (
        <li
          key={server.id}
          className="flex flex-wrap items-baseline gap-x-4 gap-y-1 border-b px-pad py-2.5 last:border-b-0"
        >
          <Link to="/servers" search={{ search: server.name }} className="id font-medium">
            {server.name}
          </Link>
          <PhaseStatus phase={server.phase} />
          <span className="min-w-0 flex-1 basis-60 truncate text-muted">
            {oneLine(server.message) || reasonText(server.reason)}
          </span>
          <RelativeTime at={server.since} className="text-sm text-faint" />
        </li>
      ))}
    </ul>
  )
}
