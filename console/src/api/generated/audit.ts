// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { AuditRecordSchema, type AuditRecord, type Timestamp } from './shared'

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
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
 * Read the audit log, newest first. A narrowed key sees only lines about its own servers and toolsets.
 * Needs: `audit:read`.
 */
export const listAudit: Operation<{ path: undefined; query: {
  /** How many at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
  /** Only by this one: `user:ID`, `api_key:ID`, or as shown: an e-mail address or a key's name. */
  actor?: string
  /**
   * Only this action, such as `server.create`, or `credential:use` of what was refused; a noun alone, such as `server`,
   * for everything done to it.
   */
  action?: string
  /** Only about this, such as `server/everything`. */
  target?: string
  /** Only what was `done`, or what was `refused`. */
  outcome?: 'done' | 'refused'
  /** Only from then on. */
  since?: Timestamp
  /** Only before then. */
  until?: Timestamp
}; body: undefined }, PageAuditRecord> = /* @__PURE__ */ operation(
  'list_audit', 'GET', '/api/v1/audit', 'json', PageAuditRecordSchema,
)
