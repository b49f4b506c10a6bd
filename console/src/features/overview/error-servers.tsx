import { useQuery } from '@tanstack/react-query'
import { call } from '@/api/client'
import { listCalls } from '@/api/generated/calls'
import type { CallsOverview } from '@/api/generated/types'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { ErrorState } from '@/ui/error-state'
import { Link } from '@/ui/link'
import { SkeletonLines } from '@/ui/skeleton'
import { errorsByServer } from './errors-by-server'

/** As many as the API gives of one outcome. */
const MOST_CALLS = 500
const MOST_SERVERS = 8

/** The servers that the errors among these calls are of, the one with the most first. */
export function ErrorServers({ calls }: { calls: CallsOverview }) {
  const outcomes = calls.outcomes
    .map(({ outcome }) => outcome)
    .filter((outcome) => outcome !== 'ok' && outcome !== 'cancelled')
    .sort()
  const query = useQuery({
    // Not by `since`, which goes on with every minute: what is shown is replaced, not taken away.
    queryKey: [listCalls.id, 'errors by server', outcomes],
    queryFn: async ({ signal }) => {
      const pages = await Promise.all(
        outcomes.map((outcome) =>
          call(listCalls, { query: { outcome, since: calls.since, limit: MOST_CALLS } }, { signal }),
        ),
      )
      return {
        servers: errorsByServer(pages.flatMap((page) => page.items)),
        whole: pages.every((page) => page.next_cursor == null),
      }
    },
    refetchInterval: 30_000,
  })
  if (query.data === undefined) {
    if (query.error === null) return <SkeletonLines count={2} />
    return (
      <ErrorState
        error={query.error}
        onRetry={() => void query.refetch()}
        retrying={query.isFetching}
        className="p-0"
      />
    )
  }
  const { servers, whole } = query.data
  const more = servers.length - MOST_SERVERS
  return (
    <>
      <ul aria-label={t('Errors by server')} className="flex flex-col gap-1">
        {servers.slice(0, MOST_SERVERS).map(({ server, count }) => (
          <li key={server ?? ''} className="flex items-baseline justify-between gap-3">
            {server === undefined ? (
              <span className="text-muted">{t('a server that is gone, or none')}</span>
            ) : (
              <Link to="/servers/$name/metrics" params={{ name: server }} className="id min-w-0 truncate">
                {server}
              </Link>
            )}
            <span className="tabular whitespace-nowrap">
              {plural(count, '{count} error', '{count} errors')}
            </span>
          </li>
        ))}
      </ul>
      {more > 0 && (
        <p className="mt-1 text-muted">
          {plural(more, 'and {count} more server', 'and {count} more servers')}
        </p>
      )}
      {!whole && (
        <p className="mt-1 text-muted">
          {t('Of the newest {count} calls of each outcome.', { count: formatNumber(MOST_CALLS) })}
        </p>
      )}
    </>
  )
}
