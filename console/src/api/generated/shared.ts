// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { CodeSchema, type Code } from './enums'

/** A key for machines. */
export type ApiKeyId = string
export const ApiKeyIdSchema: v.GenericSchema<unknown, ApiKeyId> = v.string()

/** One line of the audit log. */
export type AuditId = string
export const AuditIdSchema: v.GenericSchema<unknown, AuditId> = v.string()

/** A point in time with millisecond precision. */
export type Timestamp = string
export const TimestampSchema: v.GenericSchema<unknown, Timestamp> = v.string()

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

/**
 * The name of a catalog entry: `namespace/name` as in the MCP registry
 * (`^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$`, 3 to 200 characters; server.json schema 2025-12-11).
 */
export type EntryName = string
export const EntryNameSchema: v.GenericSchema<unknown, EntryName> = v.string()

/** What is wrong with one field of a request. */
export interface FieldError {
  /** Where: a path such as `environment.API_KEY`. */
  field: string
  /** What is wrong and what would be right. */
  message: string
}
export const FieldErrorSchema: v.GenericSchema<unknown, FieldError> = v.object({
  field: v.string(),
  message: v.string(),
})

/** Labels by key, checked: `zone=a,gpu=yes`. */
export type Labels = Record<string, string>
export const LabelsSchema: v.GenericSchema<unknown, Labels> = v.record(v.string(), v.string())

/**
 * The name of a server, toolset, toolbox, organization or credential.
 *
 * 1 to 40 of `a-z`, `0-9` and single `-` inside. Never `__` or `_`, which separates server and tool in a
 * toolset (`{server}__{tool}`), and never 64 characters, so that the pair fits what clients accept.
 */
export type Name = string
export const NameSchema: v.GenericSchema<unknown, Name> = v.string()

/** An error answer: `application/problem+json` (RFC 9457) with our stable `code`. */
export interface Problem {
  /** The stable code. */
  code: Code
  /** What is wrong this time, for a person. */
  detail: string
  /** Field by field, when a request did not validate. */
  errors?: FieldError[]
  /** The request id, to find the log lines. */
  request_id?: string | null
  /** The HTTP status. */
  status: number
  /** The code's meaning in a few words. */
  title: string
  /** A reference to the code's documentation. */
  type: string
}
export const ProblemSchema: v.GenericSchema<unknown, Problem> = v.object({
  code: CodeSchema,
  detail: v.string(),
  errors: v.optional(v.array(FieldErrorSchema)),
  request_id: v.nullish(v.string()),
  status: v.number(),
  title: v.string(),
  type: v.string(),
})

export type Secret = string

/** Something deployed, or a remote MCP server registered. */
export type ServerId = string
export const ServerIdSchema: v.GenericSchema<unknown, ServerId> = v.string()

/** A chosen set of tools served at one URL. */
export type ToolsetId = string
export const ToolsetIdSchema: v.GenericSchema<unknown, ToolsetId> = v.string()

/** A person who signs in. */
export type UserId = string
export const UserIdSchema: v.GenericSchema<unknown, UserId> = v.string()
