/**
 * The page's live connection. Its code is not part of the first load; the stream tells what is stale once it is there.
 */
import type { LiveEvents } from '@/api/events'
import { queryClient } from './query-client'

let live: LiveEvents | undefined
let wanted = false

/** Begins to follow changes; does nothing when it already does. */
export function startLive(): void {
  wanted = true
  void import('@/api/events').then(({ LiveEvents }) => {
    live ??= new LiveEvents(queryClient)
    if (wanted) live.start()
  })
}

/** Ends it: before sign-out, and when the session ended. */
export function stopLive(): void {
  wanted = false
  live?.stop()
}
