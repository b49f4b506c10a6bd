import { useQuery } from '@tanstack/react-query'
import { listKeys } from '@/api/generated/keys'
import type { ApiKey } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { plural, t } from '@/lib/t'
import { ErrorNote } from '@/ui/error-state'

/** How many of them are named. */
const NAMED = 10

/** Where more is needed than the first page, it is said that there are more. */
const PAGE = 500

/** The keys that work and that somebody (`me`, `user:ID`, `api_key:ID`) made, and those made with these. */
export function useMadeKeys(maker: string) {
  const session = useSession()
  return useQuery({
    ...q(listKeys, { query: { made_by: maker, active: true, limit: PAGE } }),
    enabled: may(session, 'key:read'),
    staleTime: 0,
  })
}

/** Names the keys that somebody made. Nothing when there are none. */
export function MadeKeys({ maker, title }: { maker: string; title: (keys: string) => string }) {
  const { data, error } = useMadeKeys(maker)
  if (error !== null) return <ErrorNote error={error} />
  const keys = data?.items ?? []
  if (keys.length === 0) return null
  const more = data?.next_cursor == null ? '' : '+'
  return (
    <div className="flex flex-col gap-1">
      <p className="font-medium text-text">
        {title(plural(keys.length, '{count} key', `{count}${more} keys`))}
      </p>
      <KeyNames keys={keys} />
    </div>
  )
}

function KeyNames({ keys }: { keys: readonly ApiKey[] }) {
  return (
    <ul
      aria-label={t('Keys')}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      className="max-h-60 overflow-y-auto"
    >
      {keys.slice(0, NAMED).map((key) => (
        <li key={key.id}>
          <span className="id">{key.name}</span> <span className="text-muted">{key.role}</span>
        </li>
      ))}
      {keys.length > NAMED && <li>{t('and {count} more', { count: keys.length - NAMED })}</li>}
    </ul>
  )
}
