import { queryOptions, useQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { call } from '@/api/client'
import { listCalls } from '@/api/generated/calls'
import { getKey } from '@/api/generated/keys'
import { may, useSession } from '@/api/session'
import { formatDuration } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Card } from '@/ui/card'
import { Link } from '@/ui/link'
import { LiveRegion } from '@/ui/live-region'
import { RelativeTime } from '@/ui/relative-time'
import { Status } from '@/ui/status'
import { useNow } from '@/ui/use-now'
import type { ChosenKey } from './public/connect-page'

const ASK_EVERY_MS = 1500
/** After this long without a call there is something to check. */
const PATIENCE_MS = 45_000

/** The newest sign of a key: a call, or for people who may not read calls when it was used last. */
interface Sign {
  /** Another one when the key was used again; empty when it never was. */
  mark: string
  at: string | undefined
  what: string | undefined
  took: number | undefined
  failed: boolean
}

/** Waits for the first call with a key, and says so when it comes. */
export function FirstCall({
  name,
  chosen,
  url,
}: {
  name: string
  chosen: ChosenKey | undefined
  url: string
}) {
  const session = useSession()
  const reads = may(session, 'audit:read') ? 'calls' : may(session, 'key:read') ? 'key' : undefined
  return (
    <Card title={t('3. First call')}>
      {chosen?.id === undefined ? (
        <p className="text-muted">
          {t(
            'Make a key, or say which one it is: then this page notices when the client calls for the first time.',
          )}
        </p>
      ) : reads === undefined ? (
        <p className="text-muted">
          {t('Your role may not see calls: look into the client whether it works.')}
        </p>
      ) : (
        <Waiting key={chosen.id} name={name} id={chosen.id} fresh={chosen.fresh} reads={reads} url={url} />
      )}
    </Card>
  )
}

function Waiting({
  name,
  id,
  fresh,
  reads,
  url,
}: {
  name: string
  id: string
  fresh: boolean
  reads: 'calls' | 'key'
  url: string
}) {
  const [since] = useState(() => Date.now())
  // What the key had done before this page waited for it.
  const before = useQuery({
    ...signQuery(reads, id, `before ${since}`),
    staleTime: Number.POSITIVE_INFINITY,
    enabled: !fresh,
  })
  const earlier = fresh ? '' : before.data?.mark
  const now = useQuery({
    ...signQuery(reads, id, `since ${since}`),
    enabled: earlier !== undefined,
    refetchInterval: (query) =>
      query.state.data !== undefined && query.state.data.mark !== earlier ? false : ASK_EVERY_MS,
  })
  const sign = now.data !== undefined && now.data.mark !== earlier ? now.data : undefined
  const late = useNow((time) => time - since > PATIENCE_MS)
  return (
    <div className="flex flex-col gap-3">
      <LiveRegion>{sign === undefined ? '' : t('The first call arrived')}</LiveRegion>
      {sign === undefined ? (
        <Status kind="working">{t('Waiting for first call…')}</Status>
      ) : (
        <div className="flex flex-wrap items-center gap-x-4 gap-y-1 rounded-md border border-good/40 bg-good-soft px-3 py-2.5">
          <Status kind="good" className="font-medium text-good">
            {t('Connected: the first call arrived')}
          </Status>
          <span className="min-w-0 text-sm">
            {sign.what !== undefined && <span className="id wrap-anywhere">{sign.what}</span>}{' '}
            <RelativeTime at={sign.at} className="text-muted" />
            {sign.took !== undefined && <span className="text-muted"> · {formatDuration(sign.took)}</span>}
          </span>
        </div>
      )}
      {sign?.failed === true && (
        <p className="text-muted">
          {t('It was answered with an error; the client reaches Toolyard all the same.')}
        </p>
      )}
      {sign === undefined && late && <Checks name={name} url={url} />}
    </div>
  )
}

function Checks({ name, url }: { name: string; url: string }) {
  return (
    <div className="text-muted">
      <p className="font-medium text-text">{t('If nothing happens')}</p>
      <ul className="mt-1 flex list-disc flex-col gap-1 pl-5">
        <li>{t('Start the client again: most read their configuration only then.')}</li>
        <li>
          {t('The machine of the client must reach {host}.', { host: hostOf(url) })}
          {/^(localhost|127\.|\[::1\])/.test(hostOf(url)) &&
            ` ${t('This address is only reachable from the machine that Toolyard runs on.')}`}
        </li>
        <li>{t('The snippet must hold this key, whole and without blanks.')}</li>
        <li>{t('The client’s own log says what it was answered.')}</li>
        <li>
          <Link to="/playground/$name" params={{ name }}>
            {t('Try it in the playground')}
          </Link>
          {t(': if that works, it is not the server.')}
        </li>
      </ul>
    </div>
  )
}

function signQuery(reads: 'calls' | 'key', id: string, when: string) {
  return queryOptions({
    queryKey: ['first_call', reads, id, when],
    queryFn: async ({ signal }): Promise<Sign> => {
      if (reads === 'calls') {
        const { items } = await call(listCalls, { query: { key: id, limit: 1 } }, { signal })
        const newest = items[0]
        return {
          mark: newest === undefined ? '' : `${newest.at} ${newest.request_id}`,
          at: newest?.at,
          what: newest && oneLine(`${newest.method} ${newest.target}`, 120),
          took: newest && newest.duration_us / 1000,
          failed: newest !== undefined && newest.outcome !== 'ok',
        }
      }
      const key = await call(getKey, { path: { id } }, { signal })
      const at = key.last_used_at ?? undefined
      return { mark: at ?? '', at, what: undefined, took: undefined, failed: false }
    },
    staleTime: 0,
    gcTime: 0,
  })
}

function hostOf(url: string): string {
  try {
    return new URL(url).host
  } catch {
    return url
  }
}
