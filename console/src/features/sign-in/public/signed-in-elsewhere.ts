/**
 * Signing in or out in one tab of a browser is doing so in all of them: they share the session's cookie. The tab that did
 * tells the others, and a tab that waits at sign-in looks when somebody comes back to it, too.
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

/** Tells the other tabs of this browser that somebody signed in or out. */
export function tellOthers(what: 'signed in' | 'signed out'): void {
  channel().postMessage(what)
}

/** Calls `heard` when another tab tells. Gives the function that ends it. */
export function hearOthers(heard: () => void): () => void {
  const abort = new AbortController()
  channel().addEventListener('message', heard, { signal: abort.signal })
  return () => abort.abort()
}

/**
 * Calls `onFound` with the session of whoever is signed in, or `undefined` where nobody is: by now, or later by another
 * tab. `looks`: not only when another tab tells, but at once and when this one is seen again; not where nobody may be at
 * sign-in on purpose.
 */
export function useSignedInElsewhere(onFound: (session: Session | undefined) => void, looks = true): void {
  const latest = useRef(onFound)
  useEffect(() => {
    latest.current = onFound
  })
  useEffect(() => {
    const abort = new AbortController()
    const { signal } = abort
    let looked = 0
    const look = async () => {
      looked += 1
      const mine = looked
      // Without an answer nothing is known.
      const session = await currentSession(signal).catch(() => null)
      // A later look knows better.
      if (session !== null && mine === looked && !signal.aborted) latest.current(session)
    }
    const seen = () => document.visibilityState === 'visible' && void look()
    const unheard = hearOthers(() => void look())
    if (looks) {
      document.addEventListener('visibilitychange', seen, { signal })
      void look()
    }
    return () => {
      abort.abort()
      unheard()
    }
  }, [looks])
}

/**
 * Whoever it is, or `undefined` where nobody is signed in. Not `call`: that nobody is signed in is no news here, and must
 * not lead to sign-in.
 */
async function currentSession(signal: AbortSignal): Promise<Session | undefined> {
  const response = await send(getSession.path, { signal, headers: { accept: 'application/json' } })
  return response.status === 401 ? undefined : v.parse(SessionSchema, await response.json())
}
