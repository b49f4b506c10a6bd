import { formatDuration, formatRelative, formatTime, instant } from '@/lib/format'
import { useNow } from './use-now'

/** A time as people say it, with the exact one behind it. It stays right while the page is open. */
export function RelativeTime({
  at,
  className,
}: {
  at: string | Date | null | undefined
  className?: string
}) {
  const date = instant(at)
  const text = useNow((now) => (date === undefined ? '–' : formatRelative(date, now)))
  if (date === undefined) return <span className={className}>–</span>
  return (
    <time dateTime={date.toISOString()} title={formatTime(date)} className={className}>
      {text}
    </time>
  )
}

/** How long something lasted, in milliseconds: as exactly as it is known once it is over, and before that in seconds. */
export function elapsed(start: number, end: number | undefined, now: number): number {
  if (end !== undefined) return Math.max(0, end - start)
  return Math.max(0, Math.floor((now - start) / 1000) * 1000)
}

/** How long something has lasted, counting on. */
export function Elapsed({
  since,
  until,
  className,
}: {
  since: string | Date
  until?: string | Date | null | undefined
  className?: string
}) {
  const start = instant(since)
  const end = instant(until)
  const text = useNow((now) =>
    start === undefined ? '–' : formatDuration(elapsed(start.getTime(), end?.getTime(), now)),
  )
  return <span className={className ?? 'tabular'}>{text}</span>
}
