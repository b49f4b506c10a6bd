/**
 * What happens when an answer says that nobody is signed in any more. Where something would be lost (a change is being
 * made, or something typed is not saved) whoever was signed in is asked to sign in again over the page, and the change
 * goes on; elsewhere the page gives way to sign-in, and comes back after it.
 */
import type { RegisteredRouter } from '@tanstack/react-router'
import { useSyncExternalStore } from 'react'
import { stopLive } from './live'
import { queryClient } from './query-client'

let asked: { answered: Promise<boolean>; answer: (signedIn: boolean) => void } | undefined
/** Somebody closed the question: what merely reads does not ask again. */
let declined = false
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
  if (declined && !changes) return Promise.resolve(false)
  let answer: (signedIn: boolean) => void = () => undefined
  const answered = new Promise<boolean>((resolve) => {
    answer = resolve
  })
  become({ answered, answer })
  return answered
}

/** Answers the question. */
export function answerSignIn(signedIn: boolean): void {
  const before = asked
  declined = !signedIn
  become(undefined)
  before?.answer(signedIn)
}

/** Whether the question is open. */
export function useAskedToSignIn(): boolean {
  return useSyncExternalStore(subscribe, () => asked !== undefined)
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
