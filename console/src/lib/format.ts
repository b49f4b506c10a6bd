/** Times, durations, sizes and numbers as people read them. The only place that formats them. */
import { locale, t } from './t'

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** Formatters are costly to make and cheap to keep. */
function kept<Options>(make: (options: Options) => Intl.NumberFormat): (options: Options) => Intl.NumberFormat
function kept<Options>(
  make: (options: Options) => Intl.DateTimeFormat,
): (options: Options) => Intl.DateTimeFormat
function kept<Options, Formatter>(make: (options: Options) => Formatter): (options: Options) => Formatter {
  const formatters = new Map<string, Formatter>()
  return (options) => {
    const key = JSON.stringify(options)
    const formatter = formatters.get(key) ?? make(options)
    formatters.set(key, formatter)
    return formatter
  }
}

const numbers = kept((options: Intl.NumberFormatOptions) => new Intl.NumberFormat(locale(), options))
const dates = kept((options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat(locale(), options))

/** A timestamp of the API; `undefined` when it is none. */
export function instant(at: string | Date | null | undefined): Date | undefined {
  if (at === null || at === undefined) return undefined
  const date = typeof at === 'string' ? new Date(at) : at
  return Number.isNaN(date.getTime()) ? undefined : date
}

/** The clock has 24 hours everywhere, as in logs and in what is set in UTC, whatever the reader's locale says. */
export const CLOCK = { hourCycle: 'h23' } as const

/** A day and a time of day, to the second: for tables and titles. */
export function formatTime(at: string | Date): string {
  const date = instant(at)
  return date === undefined
    ? String(at)
    : dates({ ...CLOCK, dateStyle: 'medium', timeStyle: 'medium' }).format(date)
}

/** A message with the times that the server wrote for programs as people read them. */
export function readableTimes(text: string): string {
  return text.replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, formatTime)
}

/** Hours, minutes, seconds and milliseconds: for lines of a log. */
export function formatClock(at: string | Date): string {
  const date = instant(at)
  if (date === undefined) return String(at)
  return dates({
    ...CLOCK,
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    fractionalSecondDigits: 3,
  }).format(date)
}

/** A day. */
export function formatDate(at: string | Date): string {
  const date = instant(at)
  return date === undefined ? String(at) : dates({ dateStyle: 'medium' }).format(date)
}

/** A list has many times, and each is written again every second. */
let relative: Intl.RelativeTimeFormat | undefined

/** How long ago, or how far ahead: `4 min ago`, `in 2 h`. */
export function formatRelative(at: string | Date, now: number): string {
  const date = instant(at)
  if (date === undefined) return String(at)
  const difference = date.getTime() - now
  const size = Math.abs(difference)
  if (size < 10 * SECOND) return difference > SECOND ? t('in a few seconds') : t('just now')
  const [unit, length] = ladder(size)
  relative ??= new Intl.RelativeTimeFormat(locale(), { numeric: 'always', style: 'short' })
  // What is ahead was set to a round number a moment ago: 90 days are not two months.
  const steps = difference / length
  return relative.format(difference > 0 ? Math.round(steps) : Math.trunc(steps), unit)
}

function ladder(size: number): [Intl.RelativeTimeFormatUnit, number] {
  if (size < MINUTE) return ['second', SECOND]
  if (size < HOUR) return ['minute', MINUTE]
  if (size < DAY) return ['hour', HOUR]
  if (size < 30 * DAY) return ['day', DAY]
  if (size < 365 * DAY) return ['month', 30 * DAY]
  return ['year', 365 * DAY]
}

/** A length of time: `830 ms`, `2.4 s`, `3 min 20 s`, `5 d 4 h`. */
export function formatDuration(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return '–'
  const size = Math.max(0, milliseconds)
  if (size < 1) return t('{value} ms', { value: numbers({ maximumSignificantDigits: 2 }).format(size) })
  if (size < SECOND) return t('{value} ms', { value: numbers({ maximumFractionDigits: 0 }).format(size) })
  if (size < 10 * SECOND)
    return t('{value} s', { value: numbers({ maximumFractionDigits: 1 }).format(size / SECOND) })
  if (size < MINUTE) return t('{value} s', { value: Math.floor(size / SECOND) })
  if (size < HOUR) return pair(size, MINUTE, 'min', SECOND, 's')
  if (size < DAY) return pair(size, HOUR, 'h', MINUTE, 'min')
  return pair(size, DAY, 'd', HOUR, 'h')
}

function pair(size: number, large: number, largeUnit: string, small: number, smallUnit: string): string {
  const whole = Math.floor(size / large)
  const rest = Math.floor((size % large) / small)
  return rest === 0 ? `${whole} ${largeUnit}` : `${whole} ${largeUnit} ${rest} ${smallUnit}`
}

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** A size in memory or on disk: `48.2 MiB`. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes)) return '–'
  let value = Math.max(0, bytes)
  let step = 0
  while (value >= 1024 && step < SIZES.length - 1) {
    value /= 1024
    step += 1
  }
  const digits = step === 0 || value >= 100 ? 0 : 1
  return `${numbers({ maximumFractionDigits: digits }).format(value)} ${SIZES[step]}`
}

/** A whole number with its separators. */
export function formatNumber(value: number): string {
  return numbers({ maximumFractionDigits: 0 }).format(value)
}

/** A number in few characters: `1.2K`. */
export function formatCompact(value: number): string {
  return numbers({ notation: 'compact', maximumFractionDigits: 1 }).format(value)
}

/** A share: `0.25` is `25 %`. */
export function formatPercent(share: number): string {
  const size = Math.abs(share)
  return numbers({ style: 'percent', maximumFractionDigits: size > 0 && size < 0.1 ? 1 : 0 }).format(share)
}

/** What a text costs in a model's context, as an estimate of four bytes a token. */
export function formatTokens(tokens: number): string {
  return t('{count} tokens', { count: formatCompact(tokens) })
}
