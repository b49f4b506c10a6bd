import { useSyncExternalStore } from 'react'
import { LiveEvents, type LiveState } from '@/api/events'
import { queryClient } from './query-client'

/** The page's live connection. */
export const live = new LiveEvents(queryClient)

/** Whether changes arrive. */
export function useLiveState(): LiveState {
  return useSyncExternalStore(live.subscribe, live.state)
}
