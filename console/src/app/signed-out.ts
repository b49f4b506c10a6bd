/**
 * What happens when an answer says that this page's person is not signed in any more. Where something would be lost (a
 * change is being made, or something typed is not saved) they are asked to sign in again over the page, and the change goes
 * on; elsewhere the page gives way to sign-in, and comes back after it. Where somebody else is signed in by now (tabs of one
 * browser share its session) the page always says so, and goes on only with its own person.
 */
import type { RegisteredRouter } from '@tanstack/react-router'
import { useEffect, useSyncExternalStore } from 'react'
import { sessionQuery } from '@/api/session'
import { hearOthers } from '@/features/sign-in/public/signed-in-elsewhere'
import { stopLive } from './live'
import { queryClient } from './query-client'

let asked: { answered: Promise<boolean>; answer: (signedIn: boolean) => void } | undefined
/** Somebody closed the question: what merely reads does not ask again. */
let declined = false
/** The page was come back to, or another tab told: that asks again. */
let looking = false
const listeners = new Set<() => void>()

function become(next: typeof asked): void {
  asked = next
  for (const listener of listeners) listener()
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

/** Asks over the page; whether somebody signed in. `changes`: for something that a person just did. */
export function askToSignIn(changes: boolean): Promise<boolean> {
  if (asked !== undefined) return asked.answered
  if (declined && !changes && !looking) return Promise.resolve(false)
  let answer: (signedIn: boolean) => void = () => undefined
  const answered = new Promise<boolean>((resolve) => {
    answer = resolve
  })
  become({ answered, answer })
  return answered
}

/** Answers the question; also that this person turned out to be signed in, by whichever tab. */
export function answerSignIn(signedIn: boolean): void {
  const before = asked
  const lost = isLost()
  // A question that was closed stays so, until somebody signed in.
  declined = !signedIn && lost
  become(undefined)
  before?.answer(signedIn)
  // What was asked for meanwhile was refused.
  if (signedIn && lost) void queryClient.invalidateQueries()
}

function isLost(): boolean {
  return asked !== undefined || declined
}

/** Whether the question is open. */
export function useAskedToSignIn(): boolean {
  return useSyncExternalStore(subscribe, () => asked !== undefined)
}

/** Whether the session is not this page's any more: the question is open, or was closed without an answer. */
export function useSessionLost(): boolean {
  return useSyncExternalStore(subscribe, isLost)
}

/**
 * For what is around every page: looks whether the session is still this page's, when another tab says that somebody
 * signed in or out and when the page is seen again. The question itself comes from the refusal, as with every other read.
 */
export function useOtherTabs(): void {
  useEffect(() => {
    const look = async () => {
      looking = true
      try {
        await queryClient.refetchQueries({ queryKey: sessionQuery.queryKey }, { throwOnError: true })
        answerSignIn(true)
      } catch {
        // The refusal asked already; without an answer nothing is known.
      }
      looking = false
    }
    const seen = () => document.visibilityState === 'visible' && void look()
    const unheard = hearOthers(() => void look())
    document.addEventListener('visibilitychange', seen)
    return () => {
      unheard()
      document.removeEventListener('visibilitychange', seen)
      answerSignIn(false)
      // The next page is of whoever signs in then.
      declined = false
    }
  }, [])
}

/** Gives the page up for sign-in, which leads back to it. */
export async function leaveForSignIn(router: RegisteredRouter): Promise<false> {
  stopLive()
  await router.navigate({
    to: '/sign-in',
    search: { return: router.state.location.href, ended: true },
    ignoreBlocker: true,
  })
  queryClient.clear()
  return false
}
