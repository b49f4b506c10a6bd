// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { TimestampSchema, type Timestamp } from './shared'

/** One line of the audit log. */
export type AuditId = string
export const AuditIdSchema: v.GenericSchema<unknown, AuditId> = v.string()

/** A line of the audit log. */
export interface AuditRecord {
  /** What was done, such as `server.create`. */
  action: string
  /** Who, as `kind:id`. */
  actor: string
  /** Who, for people. */
  actor_display: string
  /** When. */
  at: Timestamp
  /** More, without secrets. */
  detail: unknown
  /** Its id. */
  id: AuditId
  /** `done` or `refused`. */
  outcome: string
  /** The request id. */
  request_id?: string | null
  /** To what, such as `server/everything`. */
  target: string
}
export const AuditRecordSchema: v.GenericSchema<unknown, AuditRecord> = v.object({
  action: v.string(),
  actor: v.string(),
  actor_display: v.string(),
  at: TimestampSchema,
  detail: v.unknown(),
  id: AuditIdSchema,
  outcome: v.string(),
  request_id: v.nullish(v.string()),
  target: v.string(),
})

/** A page of a list. `next_cursor` is passed back as `cursor` to get the next page. */
export interface PageAuditRecord {
  /** The things on this page. */
  items: AuditRecord[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageAuditRecordSchema: v.GenericSchema<unknown, PageAuditRecord> = v.object({
  items: v.array(AuditRecordSchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * Read the audit log, newest first.
 * Needs: `audit:read`.
 */
export const listAudit: Operation<{ path: undefined; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageAuditRecord> = /* @__PURE__ */ operation(
  'list_audit', 'GET', '/api/v1/audit', 'json', PageAuditRecordSchema,
)
