/** Who is signed in and what they may do. Every page under the shell has a session. */
import { queryOptions, useSuspenseQuery } from '@tanstack/react-query'
import { t } from '@/lib/t'
import { call } from './client'
import { useOutdatedSince } from './connection'
import { getSession } from './generated/identity'
import type { Action, Session } from './generated/types'

/** The session's query: kept until an event or a 401 says otherwise. */
export const sessionQuery = queryOptions({
  queryKey: [getSession.id],
  queryFn: ({ signal }) => call(getSession, {}, { signal }),
  staleTime: 60_000,
})

/** The session of this page. */
export function useSession(): Session {
  return useSuspenseQuery(sessionQuery).data
}

/** Whether the session may do this. */
export function may(session: Session, action: Action): boolean {
  return session.actions.includes(action)
}

/**
 * Why the session may not do this: for `disabledReason`. `undefined` when it may.
 * `<Button disabledReason={useDenied('server:deploy')}>`
 */
export function useDenied(action: Action): string | undefined {
  const forbidden = useForbidden(action)
  const outdated = useOutdatedSince() !== undefined
  if (outdated) return t('There is no connection to Toolyard: look, but nothing can be changed')
  return forbidden
}

/**
 * Why the session's role does not allow this, with or without a connection: for what is only looked at, which stays on
 * the page while the connection is lost. `undefined` when it may.
 */
export function useForbidden(action: Action): string | undefined {
  const session = useSession()
  return may(session, action)
    ? undefined
    : t('Your role ({role}) does not allow this', { role: session.role })
}
