/** Waiting for a state, with a bound. The only pause in the suite is between two looks. */
import { setTimeout as pause } from 'node:timers/promises'

export interface Patience {
  seconds?: number
  /** More for the message when the state never came. */
  detail?: () => string
}

/** Looks until `look` returns something, and returns that. An exception counts as "not yet" and is told at the end. */
export async function waitFor<T>(
  what: string,
  look: () => Promise<T | false>,
  patience: Patience = {},
): Promise<T> {
  const seconds = patience.seconds ?? 60
  const until = performance.now() + seconds * 1000
  let last: unknown
  for (;;) {
    try {
      const found = await look()
      if (found !== false) return found
      last = undefined
    } catch (error) {
      last = error
    }
    if (performance.now() > until) {
      const detail = [patience.detail?.(), last instanceof Error ? last.message : undefined]
        .filter(Boolean)
        .join('\n')
      throw new Error(`waited ${seconds} s for: ${what}${detail === '' ? '' : `\n${detail}`}`)
    }
    await pause(50)
  }
}
