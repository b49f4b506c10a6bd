/** A page that could not be shown because Toolyard was away shows itself when it is back. */
import { useEffect, useRef } from 'react'
import { isProblem } from '@/api/client'
import { useOutdatedSince } from '@/api/connection'

/** What browsers say of a file of the console that they could not get. */
const NOT_LOADED = /dynamically imported module|importing a module script failed|unable to preload css/i

/** Whether an error only says that Toolyard, or what stands before it, did not answer. */
export function isPassing(error: unknown): boolean {
  if (isProblem(error)) return error.status === 0 || error.status >= 502
  return error instanceof Error && NOT_LOADED.test(error.message)
}

const LOOK_EVERY_MS = 3000

/** Tries again once Toolyard, which did not answer, does: with or without a stream of changes that would tell. */
export function useRecovery(error: unknown, retry: () => void): void {
  const lost = useOutdatedSince() !== undefined
  const passing = isPassing(error)
  const wasAway = useRef(false)
  const latest = useRef(retry)
  useEffect(() => {
    latest.current = retry
  })
  useEffect(() => {
    if (!passing) return
    if (lost) wasAway.current = true
    const look = async () => {
      const there = await fetch('/healthz', { cache: 'no-store' }).then(
        (answer) => answer.ok,
        () => false,
      )
      // A Toolyard that was never away would only answer the same again.
      if (there && wasAway.current) latest.current()
      wasAway.current = !there
    }
    void look()
    const timer = setInterval(() => void look(), LOOK_EVERY_MS)
    const online = () => void look()
    window.addEventListener('online', online)
    return () => {
      clearInterval(timer)
      window.removeEventListener('online', online)
    }
  }, [passing, lost])
}
