/** A page that could not be shown because Toolyard was away shows itself when it is back. */
import { useEffect, useRef } from 'react'
import { isProblem } from '@/api/client'
import { useOutdatedSince } from '@/api/connection'
import { isNotLoaded, isThere } from '@/lib/not-loaded'

/** Whether an error only says that Toolyard, or what stands before it, did not answer. */
export function isPassing(error: unknown): boolean {
  if (isProblem(error)) return error.status === 0 || error.status >= 502
  return isNotLoaded(error)
}

const LOOK_EVERY_MS = 3000

/**
 * What somebody who presses "Try again" gets: a file of the console that did not come is asked for by a new page as soon
 * as Toolyard answers, because a browser may remember the failure, and after an upgrade the file has another name.
 */
export async function tryAgain(error: unknown, retry: () => void): Promise<void> {
  if (isNotLoaded(error) && (await isThere())) window.location.reload()
  else retry()
}

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
      const there = await isThere()
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
