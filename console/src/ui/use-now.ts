import { useSyncExternalStore } from 'react'

/** One clock for the whole page; it stands still while nobody looks at it. */
const listeners = new Set<() => void>()
let timer: ReturnType<typeof setInterval> | undefined

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  timer ??= setInterval(() => {
    for (const one of listeners) one()
  }, 1000)
  return () => {
    listeners.delete(listener)
    if (listeners.size > 0) return
    clearInterval(timer)
    timer = undefined
  }
}

/** A value made of the time; the component renders again only when the value is another one. */
export function useNow<Value extends string | number | boolean>(of: (now: number) => Value): Value {
  return useSyncExternalStore(subscribe, () => of(Date.now()))
}
