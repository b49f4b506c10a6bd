// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ReportKindSchema, type ReportKind } from './enums'
import { TimestampSchema, type Timestamp } from './shared'

/** What a browser reported about the console. */
export type ReportId = string
export const ReportIdSchema: v.GenericSchema<unknown, ReportId> = v.string()

/** A report as stored. What browsers say is hostile text. */
export interface ConsoleReport {
  /** When it happened, by the browser's clock. */
  at: Timestamp
  /** The console's build. */
  build: string
  /** Its id. */
  id: ReportId
  /** What it is about. */
  kind: ReportKind
  /** What an error said. */
  message?: string
  /** The vital, what was used, or the error's class. */
  name: string
  /** When it arrived. */
  received_at: Timestamp
  /** The route's pattern. */
  route: string
  /** Where an error happened. */
  stack?: string
  /** The browser, as it calls itself; bounded. */
  user_agent?: string
  /** The vital's value. */
  value?: number | null
}
export const ConsoleReportSchema: v.GenericSchema<unknown, ConsoleReport> = v.object({
  at: TimestampSchema,
  build: v.string(),
  id: ReportIdSchema,
  kind: ReportKindSchema,
  message: v.optional(v.string()),
  name: v.string(),
  received_at: TimestampSchema,
  route: v.string(),
  stack: v.optional(v.string()),
  user_agent: v.optional(v.string()),
  value: v.nullish(v.number()),
})

/** What became of a batch of reports. */
export interface ConsoleReportsTaken {
  /** How many were stored; 0 while the feature `console_telemetry` is off. */
  stored: number
}
export const ConsoleReportsTakenSchema: v.GenericSchema<unknown, ConsoleReportsTaken> = v.object({
  stored: v.number(),
})

/** What a browser reports: how fast a page was, that something was used, or that something broke. Never content. */
export interface NewConsoleReport {
  /** When, by the browser's clock. */
  at: Timestamp
  /** The console's build; at most 64 characters. */
  build: string
  /** What it is. */
  kind: ReportKind
  /** What an error said; cut off after 500 characters. */
  message?: string | null
  /** The vital's name (`LCP`, `INP`, `CLS`, `FCP`, `TTFB`), what was used, or the error's class; at most 64 characters. */
  name: string
  /** The route's pattern, such as `/servers/$name`, never the path itself; at most 128 characters. */
  route: string
  /** Where an error happened; cut off after 4000 characters. */
  stack?: string | null
  /** The vital's value: milliseconds, for `CLS` a score. */
  value?: number | null
}

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageConsoleReport {
  /** The things on this page. */
  items: ConsoleReport[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageConsoleReportSchema: v.GenericSchema<unknown, PageConsoleReport> = v.object({
  items: v.array(ConsoleReportSchema),
  next_cursor: v.nullish(v.string()),
})

/** Reports of a browser about the console. */
export interface SendConsoleReports {
  /** At most 50. */
  reports: NewConsoleReport[]
}

/**
 * List what browsers reported about the console, newest first.
 * Needs: `audit:read`.
 */
export const listConsoleReports: Operation<{ path: undefined; query: {
  /** How many at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
  /** Only of this kind. */
  kind?: ReportKind
}; body: undefined }, PageConsoleReport> = /* @__PURE__ */ operation(
  'list_console_reports', 'GET', '/api/v1/console/reports', 'json', PageConsoleReportSchema,
)

/**
 * Report how the console does in this browser: web vitals, that something was used, errors. Never content.
 * Needs: `public`.
 */
export const sendConsoleReports: Operation<{ path: undefined; query: undefined; body: SendConsoleReports }, ConsoleReportsTaken> = /* @__PURE__ */ operation(
  'send_console_reports', 'POST', '/api/v1/console/reports', 'json', ConsoleReportsTakenSchema,
)
