/**
 * Signing in in one tab of a browser is signing in in all of them: they share the session's cookie. A tab that waits at
 * sign-in hears of it from the other, or looks when somebody comes back to it.
 */
import { useEffect, useRef } from 'react'
import * as v from 'valibot'
import { send } from '@/api/client'
import { getSession, SessionSchema } from '@/api/generated/identity'
import type { Session } from '@/api/generated/types'

let opened: BroadcastChannel | undefined

/** One for this tab: what is said through it is heard by the others only. */
function channel(): BroadcastChannel {
  opened ??= new BroadcastChannel('toolyard.signed-in')
  return opened
}

/** Tells the other tabs of this browser. */
export function tellSignedIn(): void {
  channel().postMessage('signed in')
}

/**
 * Calls `onSignedIn` with the session when another tab signed in. `looks`: also when this one is seen again, where
 * nobody may be at sign-in on purpose.
 */
export function useSignedInElsewhere(onSignedIn: (session: Session) => void, looks = true): void {
  const latest = useRef(onSignedIn)
  useEffect(() => {
    latest.current = onSignedIn
  })
  useEffect(() => {
    const abort = new AbortController()
    const { signal } = abort
    const look = async () => {
      // Nobody is signed in yet, or nothing answers: whoever waits here goes on waiting.
      const session = await currentSession(signal).catch(() => undefined)
      if (session !== undefined && !signal.aborted) latest.current(session)
    }
    channel().addEventListener('message', () => void look(), { signal })
    const seen = () => document.visibilityState === 'visible' && void look()
    if (looks) document.addEventListener('visibilitychange', seen, { signal })
    return () => abort.abort()
  }, [looks])
}

/** Not `call`: that nobody is signed in is no news here, and must not lead to sign-in. */
async function currentSession(signal: AbortSignal): Promise<Session | undefined> {
  const response = await send(getSession.path, { signal, headers: { accept: 'application/json' } })
  if (!response.ok) return undefined
  const parsed = v.safeParse(SessionSchema, await response.json())
  return parsed.success ? parsed.output : undefined
}
