// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { CallOutcomeSchema, type CallOutcome } from './enums'
import { ServerIdSchema, TimestampSchema, ToolsetIdSchema, type ServerId, type Timestamp, type ToolsetId } from './shared'

/** A tenant. */
export type OrganizationId = string
export const OrganizationIdSchema: v.GenericSchema<unknown, OrganizationId> = v.string()

/** One call as recorded. Written in batches, apart from desired state. */
export interface CallRecord {
  /** Who called, as `kind:id`. */
  actor: string
  /** When it began. */
  at: Timestamp
  /** How long it took, in microseconds. */
  duration_us: number
  /** The MCP method. */
  method: string
  /** Whose. */
  organization: OrganizationId
  /** How it ended. */
  outcome: CallOutcome
  /** Bytes of the request body. */
  request_bytes: number
  /** The request id. */
  request_id: string
  /** Bytes of the answer. */
  response_bytes: number
  server?: ServerId | null
  /** The tool, prompt or resource, as the server names it. */
  target: string
  toolset?: ToolsetId | null
}
export const CallRecordSchema: v.GenericSchema<unknown, CallRecord> = v.object({
  actor: v.string(),
  at: TimestampSchema,
  duration_us: v.number(),
  method: v.string(),
  organization: OrganizationIdSchema,
  outcome: CallOutcomeSchema,
  request_bytes: v.number(),
  request_id: v.string(),
  response_bytes: v.number(),
  server: v.nullish(ServerIdSchema),
  target: v.string(),
  toolset: v.nullish(ToolsetIdSchema),
})

/** A page of a list. `next_cursor` is passed back as `cursor` to get the next page. */
export interface PageCallRecord {
  /** The things on this page. */
  items: CallRecord[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageCallRecordSchema: v.GenericSchema<unknown, PageCallRecord> = v.object({
  items: v.array(CallRecordSchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * List the calls that went through the gateway, newest first.
 * Needs: `audit:read`.
 */
export const listCalls: Operation<{ path: undefined; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageCallRecord> = /* @__PURE__ */ operation(
  'list_calls', 'GET', '/api/v1/calls', 'json', PageCallRecordSchema,
)
