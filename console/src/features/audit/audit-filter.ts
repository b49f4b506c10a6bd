import { CLOCK } from '@/lib/format'
import { locale, t } from '@/lib/t'

/** What the address of the audit page says. */
export interface AuditSearch {
  actor?: string | undefined
  action?: string | undefined
  target?: string | undefined
  outcome?: 'done' | 'refused' | undefined
  /** How far back, such as `24h`; not together with `since` and `until`. */
  range?: AuditRange | undefined
  /** From then on: a time of the API. */
  since?: string | undefined
  /** Before then. */
  until?: string | undefined
  /** The line whose details are open. */
  line?: string | undefined
}

export const AUDIT_RANGES = ['1h', '24h', '7d', '30d'] as const
export type AuditRange = (typeof AUDIT_RANGES)[number]

const HOUR_MS = 3_600_000
const LENGTH_MS: Record<AuditRange, number> = {
  '1h': HOUR_MS,
  '24h': 24 * HOUR_MS,
  '7d': 7 * 24 * HOUR_MS,
  '30d': 30 * 24 * HOUR_MS,
}

/** A range in words. */
export function rangeText(range: AuditRange): string {
  return {
    '1h': t('Last hour'),
    '24h': t('Last 24 hours'),
    '7d': t('Last 7 days'),
    '30d': t('Last 30 days'),
  }[range]
}

/** What to ask the API for. `now` stands still while the filter is the same, so that the answer keeps its key. */
export function auditQuery(search: AuditSearch, now: number) {
  const { actor, action, target, outcome, range } = search
  const since = range === undefined ? search.since : new Date(now - LENGTH_MS[range]).toISOString()
  const until = range === undefined ? search.until : undefined
  return {
    ...(actor === undefined ? {} : { actor }),
    ...(action === undefined ? {} : { action }),
    ...(target === undefined ? {} : { target }),
    ...(outcome === undefined ? {} : { outcome }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
  }
}

/** Whether any filter is on. */
export function isFiltered({ line: _, ...filters }: AuditSearch): boolean {
  return Object.values(filters).some((value) => value !== undefined)
}

/** A time of the API as an input of a day and a time wants it, in the reader's zone. */
export function toLocalInput(at: string | undefined): string {
  const date = at === undefined ? undefined : new Date(at)
  if (date === undefined || Number.isNaN(date.getTime())) return ''
  const two = (number: number) => String(number).padStart(2, '0')
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}`
}

/** And back; `undefined` for what is no time. */
export function fromLocalInput(text: string): string | undefined {
  const date = new Date(text)
  return text === '' || Number.isNaN(date.getTime()) ? undefined : date.toISOString()
}

/** A day and a time to the second, with the zone: what happened when must be exact here. */
export function exactTime(at: string): string {
  const date = new Date(at)
  if (Number.isNaN(date.getTime())) return at
  return new Intl.DateTimeFormat(locale(), { ...CLOCK, dateStyle: 'medium', timeStyle: 'long' }).format(date)
}
