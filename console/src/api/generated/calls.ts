// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { CallOutcomeSchema, type CallOutcome } from './enums'
import { NameSchema, RevisionIdSchema, ServerIdSchema, TimestampSchema, ToolsetIdSchema, type ApiKeyId, type Name, type RevisionId, type ServerId, type Timestamp, type ToolsetId, type UserId } from './shared'

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
  revision?: RevisionId | null
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
  revision: v.nullish(RevisionIdSchema),
  server: v.nullish(ServerIdSchema),
  target: v.string(),
  toolset: v.nullish(ToolsetIdSchema),
})

/** A call as recorded, with names for people. */
export interface Call {
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
  revision?: RevisionId | null
  server?: ServerId | null
  /** The tool, prompt or resource, as the server names it. */
  target: string
  toolset?: ToolsetId | null
  /** Who called, for people: an e-mail address or a key's name, while there is one. */
  actor_display?: string | null
  /** The number of the revision that had the call, while it exists. */
  revision_number?: number | null
  server_name?: Name | null
  toolset_name?: Name | null
}
export const CallSchema: v.GenericSchema<unknown, Call> = v.object({
  actor: v.string(),
  at: TimestampSchema,
  duration_us: v.number(),
  method: v.string(),
  organization: OrganizationIdSchema,
  outcome: CallOutcomeSchema,
  request_bytes: v.number(),
  request_id: v.string(),
  response_bytes: v.number(),
  revision: v.nullish(RevisionIdSchema),
  server: v.nullish(ServerIdSchema),
  target: v.string(),
  toolset: v.nullish(ToolsetIdSchema),
  actor_display: v.nullish(v.string()),
  revision_number: v.nullish(v.number()),
  server_name: v.nullish(NameSchema),
  toolset_name: v.nullish(NameSchema),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageCall {
  /** The things on this page. */
  items: Call[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageCallSchema: v.GenericSchema<unknown, PageCall> = v.object({
  items: v.array(CallSchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * List the calls that went through the gateway, newest first. A narrowed key sees only those of its own servers and
 * toolsets.
 * Needs: `audit:read`.
 */
export const listCalls: Operation<{ path: undefined; query: {
  /** How many at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
  /** Only of this server, directly or through a toolset. */
  server?: Name
  /** Only through this toolset. */
  toolset?: Name
  /** Only with this API key, by id. */
  key?: ApiKeyId
  /** Only by this member, by id: calls from the console's playground. */
  member?: UserId
  /** Only those that ended so. */
  outcome?: CallOutcome
  /**
   * Only of the request with this id, which every answer has in its header `x-request-id`. No index helps: give `since`
   * too where there are very many calls.
   */
  request_id?: string
  /** Only from then on. */
  since?: Timestamp
}; body: undefined }, PageCall> = /* @__PURE__ */ operation(
  'list_calls', 'GET', '/api/v1/calls', 'json', PageCallSchema,
)
