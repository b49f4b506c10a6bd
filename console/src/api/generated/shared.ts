// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { CodeSchema, PhaseSchema, ReasonSchema, type Code, type Phase, type Reason } from './enums'

/** A key for machines. */
export type ApiKeyId = string
export const ApiKeyIdSchema: v.GenericSchema<unknown, ApiKeyId> = v.string()

/** Something a person can give. */
export interface Input {
  /** The only values allowed. */
  choices?: string[] | null
  /** What it is when not given. */
  default?: string | null
  /** What it is for. */
  description?: string | null
  /** `string`, `number`, `boolean` or `filepath`. */
  format?: string | null
  /** It must be given. */
  isRequired?: boolean
  /** It is a secret. */
  isSecret?: boolean
  /** An example for people. */
  placeholder?: string | null
  /** A fixed value; `{variables}` in it are replaced. */
  value?: string | null
  /** Variables in `value`. */
  variables?: Record<string, Input>
}
export const InputSchema: v.GenericSchema<unknown, Input> = v.object({
  choices: v.nullish(v.array(v.string())),
  default: v.nullish(v.string()),
  description: v.nullish(v.string()),
  format: v.nullish(v.string()),
  isRequired: v.optional(v.boolean()),
  isSecret: v.optional(v.boolean()),
  placeholder: v.nullish(v.string()),
  value: v.nullish(v.string()),
  variables: v.optional(v.record(v.string(), v.lazy(() => InputSchema))),
})

/** A command-line argument. */
export interface Argument {
  /** The only values allowed. */
  choices?: string[] | null
  /** What it is when not given. */
  default?: string | null
  /** What it is for. */
  description?: string | null
  /** `string`, `number`, `boolean` or `filepath`. */
  format?: string | null
  /** It must be given. */
  isRequired?: boolean
  /** It is a secret. */
  isSecret?: boolean
  /** An example for people. */
  placeholder?: string | null
  /** A fixed value; `{variables}` in it are replaced. */
  value?: string | null
  /** Variables in `value`. */
  variables?: Record<string, Input>
  /** It may be given several times. */
  isRepeated?: boolean
  /** `named`: the flag with its dashes. */
  name?: string | null
  /** `positional` or `named`. */
  type?: string
  /** `positional`: what it is, for people and for variables. */
  valueHint?: string | null
}
export const ArgumentSchema: v.GenericSchema<unknown, Argument> = v.object({
  choices: v.nullish(v.array(v.string())),
  default: v.nullish(v.string()),
  description: v.nullish(v.string()),
  format: v.nullish(v.string()),
  isRequired: v.optional(v.boolean()),
  isSecret: v.optional(v.boolean()),
  placeholder: v.nullish(v.string()),
  value: v.nullish(v.string()),
  variables: v.optional(v.record(v.string(), InputSchema)),
  isRepeated: v.optional(v.boolean()),
  name: v.nullish(v.string()),
  type: v.optional(v.string()),
  valueHint: v.nullish(v.string()),
})

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

/** A secret in the vault. */
export type CredentialId = string
export const CredentialIdSchema: v.GenericSchema<unknown, CredentialId> = v.string()

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

/** How many instances are in a phase. */
export interface InstanceCount {
  /** How many. */
  count: number
  /** The phase. */
  phase: Phase
}
export const InstanceCountSchema: v.GenericSchema<unknown, InstanceCount> = v.object({
  count: v.number(),
  phase: PhaseSchema,
})

/** One running copy of a revision. */
export type InstanceId = string
export const InstanceIdSchema: v.GenericSchema<unknown, InstanceId> = v.string()

/**
 * The name of a server, toolset, toolbox, organization or credential.
 *
 * 1 to 40 of `a-z`, `0-9` and single `-` inside. Never `__` or `_`, which separates server and tool in a
 * toolset (`{server}__{tool}`), and never 64 characters, so that the pair fits what clients accept.
 */
export type Name = string
export const NameSchema: v.GenericSchema<unknown, Name> = v.string()

/** What went wrong with an instance. */
export interface InstanceError {
  /** When. */
  at: Timestamp
  /** The instance. */
  instance: InstanceId
  /** Why, for a person. */
  message: string
  /** Why, as a code. */
  reason: Reason
  server?: Name | null
  toolbox?: Name | null
}
export const InstanceErrorSchema: v.GenericSchema<unknown, InstanceError> = v.object({
  at: TimestampSchema,
  instance: InstanceIdSchema,
  message: v.string(),
  reason: ReasonSchema,
  server: v.nullish(NameSchema),
  toolbox: v.nullish(NameSchema),
})

/** How a set of instances fares. */
export interface Health {
  /** How many copies run beside them, for single users or sessions. */
  copies: number
  last_success_at?: Timestamp | null
  /** How many instances are in each phase; only phases that occur. */
  phases: InstanceCount[]
  /** What went wrong in the last day, the newest first, at most 20. */
  recent_errors: InstanceError[]
  /** How often instances that live were started again after ending by themselves. */
  restarts: number
}
export const HealthSchema: v.GenericSchema<unknown, Health> = v.object({
  copies: v.number(),
  last_success_at: v.nullish(TimestampSchema),
  phases: v.array(InstanceCountSchema),
  recent_errors: v.array(InstanceErrorSchema),
  restarts: v.number(),
})

/** An environment variable or header. */
export interface KeyValueInput {
  /** The only values allowed. */
  choices?: string[] | null
  /** What it is when not given. */
  default?: string | null
  /** What it is for. */
  description?: string | null
  /** `string`, `number`, `boolean` or `filepath`. */
  format?: string | null
  /** It must be given. */
  isRequired?: boolean
  /** It is a secret. */
  isSecret?: boolean
  /** An example for people. */
  placeholder?: string | null
  /** A fixed value; `{variables}` in it are replaced. */
  value?: string | null
  /** Variables in `value`. */
  variables?: Record<string, Input>
  /** Its name. */
  name?: string
}
export const KeyValueInputSchema: v.GenericSchema<unknown, KeyValueInput> = v.object({
  choices: v.nullish(v.array(v.string())),
  default: v.nullish(v.string()),
  description: v.nullish(v.string()),
  format: v.nullish(v.string()),
  isRequired: v.optional(v.boolean()),
  isSecret: v.optional(v.boolean()),
  placeholder: v.nullish(v.string()),
  value: v.nullish(v.string()),
  variables: v.optional(v.record(v.string(), InputSchema)),
  name: v.optional(v.string()),
})

/** Labels by key, checked: `zone=a,gpu=yes`. */
export type Labels = Record<string, string>
export const LabelsSchema: v.GenericSchema<unknown, Labels> = v.record(v.string(), v.string())

/** How to speak to a server. */
export interface Transport {
  /** Headers. */
  headers?: KeyValueInput[]
  /** `stdio`, `streamable-http` or `sse`. */
  type?: string
  /** The address, which may hold `{variables}`. */
  url?: string | null
  /** What the address's variables are. */
  variables?: Record<string, Input>
}
export const TransportSchema: v.GenericSchema<unknown, Transport> = v.object({
  headers: v.optional(v.array(KeyValueInputSchema)),
  type: v.optional(v.string()),
  url: v.nullish(v.string()),
  variables: v.optional(v.record(v.string(), InputSchema)),
})

/** A package to install. */
export interface Package {
  /** Its environment. */
  environmentVariables?: KeyValueInput[]
  /** SHA-256 of the file, in hex. */
  fileSha256?: string | null
  /** The package's name, or an image with its tag, or a download address. */
  identifier?: string
  /** Arguments to the program. */
  packageArguments?: Argument[]
  /** A registry other than the client's default. */
  registryBaseUrl?: string | null
  /** `npm`, `pypi`, `oci`, `nuget`, `mcpb`, `cargo`. */
  registryType?: string
  /** Arguments to what runs the package (`npx`, `docker`). */
  runtimeArguments?: Argument[]
  /** `npx`, `uvx`, `docker`, `dnx`. */
  runtimeHint?: string | null
  /** How to speak to it. */
  transport?: Transport
  /** Its version. */
  version?: string | null
}
export const PackageSchema: v.GenericSchema<unknown, Package> = v.object({
  environmentVariables: v.optional(v.array(KeyValueInputSchema)),
  fileSha256: v.nullish(v.string()),
  identifier: v.optional(v.string()),
  packageArguments: v.optional(v.array(ArgumentSchema)),
  registryBaseUrl: v.nullish(v.string()),
  registryType: v.optional(v.string()),
  runtimeArguments: v.optional(v.array(ArgumentSchema)),
  runtimeHint: v.nullish(v.string()),
  transport: v.optional(TransportSchema),
  version: v.nullish(v.string()),
})

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

/** An immutable, resolved spec of a server. */
export type RevisionId = string
export const RevisionIdSchema: v.GenericSchema<unknown, RevisionId> = v.string()

export type Secret = string
export const SecretSchema: v.GenericSchema<unknown, Secret> = v.string()

/** Something deployed, or a remote MCP server registered. */
export type ServerId = string
export const ServerIdSchema: v.GenericSchema<unknown, ServerId> = v.string()

/** A chosen set of tools served at one URL. */
export type ToolsetId = string
export const ToolsetIdSchema: v.GenericSchema<unknown, ToolsetId> = v.string()

/** A person who signs in. */
export type UserId = string
export const UserIdSchema: v.GenericSchema<unknown, UserId> = v.string()
