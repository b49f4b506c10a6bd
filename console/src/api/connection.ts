/** Since when what is shown may be old: because changes do not arrive, or because it is from the last visit. */
import { useSyncExternalStore } from 'react'

const listeners = new Set<() => void>()
let lostSince: number | undefined
let restoredFrom: number | undefined

/** Since when, in milliseconds since 1970; `undefined` when everything is fresh. */
export function outdatedSince(): number | undefined {
  return restoredFrom ?? lostSince
}

function change(next: () => void): void {
  const before = outdatedSince()
  next()
  if (outdatedSince() !== before) for (const listener of listeners) listener()
}

/** The live stream was lost at this time, or (`undefined`) it is not lost. */
export function streamLost(since: number | undefined): void {
  change(() => {
    lostSince = since
  })
}

/** What is shown was read at this time, on an earlier visit; `undefined` once the server answers again. */
export function restored(from: number | undefined): void {
  change(() => {
    restoredFrom = from
  })
}

/** Calls `listener` when that changes. Gives the function that ends it. */
export function watchOutdated(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

/** Since when what is shown may be old. */
export function useOutdatedSince(): number | undefined {
  return useSyncExternalStore(watchOutdated, outdatedSince)
}
