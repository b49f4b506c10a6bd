// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { BreakerStateSchema, ReasonSchema, ToolboxStateSchema, type BreakerState, type Reason, type ToolboxState } from './enums'
import { HealthSchema, LabelsSchema, NameSchema, RevisionIdSchema, TimestampSchema, type Health, type Labels, type Name, type RevisionId, type Timestamp } from './shared'

/** What a toolbox's host has and has left. */
export interface Capacity {
  /** When it was measured. */
  at: Timestamp
  /** Processors that may be used. */
  cpus: number
  /** Room left where the agent keeps its data, in bytes. */
  disk_free_bytes: number
  /** Memory that could still be used, in bytes. */
  memory_available_bytes: number
  /** Memory in all, in bytes. */
  memory_bytes: number
}
export const CapacitySchema: v.GenericSchema<unknown, Capacity> = v.object({
  at: TimestampSchema,
  cpus: v.number(),
  disk_free_bytes: v.number(),
  memory_available_bytes: v.number(),
  memory_bytes: v.number(),
})

/** What is still on a toolbox that is drained. */
export interface Drain {
  /** How many are replaced elsewhere already and finish their calls there, or end. */
  ending: number
  /** How many instances are still to be moved to another toolbox. */
  moving: number
  /** Servers that stay, at most 100: they must run there, or no other toolbox that takes servers has their labels. */
  stays: Name[]
  /** Those of them that must because their volumes are there. */
  volumes?: Name[]
}
export const DrainSchema: v.GenericSchema<unknown, Drain> = v.object({
  ending: v.number(),
  moving: v.number(),
  stays: v.array(NameSchema),
  volumes: v.optional(v.array(NameSchema)),
})

/** Whether a host enforces a protection. */
export interface Enforcement {
  /** By what means, or why not. */
  detail: string
  /** Enforced. */
  enforced: boolean
}
export const EnforcementSchema: v.GenericSchema<unknown, Enforcement> = v.object({
  detail: v.string(),
  enforced: v.boolean(),
})

/** A container engine that does not work. */
export interface EngineFailure {
  /** Why, for a person. */
  message: string
  /** Since when. */
  since: Timestamp
}
export const EngineFailureSchema: v.GenericSchema<unknown, EngineFailure> = v.object({
  message: v.string(),
  since: TimestampSchema,
})

/** Make a toolbox and a token for its agent. */
export interface EnrollToolbox {
  /** Where its agent listens, as `host:port`, when the host must not dial out. Absent, the agent dials. */
  address?: string | null
  /** How long the token is good for; an hour when absent. */
  expires_seconds?: number | null
  /** What servers may ask of a toolbox, such as `zone=a`. */
  labels?: Labels
  /** Its name. */
  name: Name
}

/** Why a replica has no connection to an agent that listens. */
export interface OfferFailure {
  /** When that was. */
  at: Timestamp
  /** How many attempts have failed since the last one that did not. */
  failures: number
  /** How the last attempt ended, for a person. */
  message: string
}
export const OfferFailureSchema: v.GenericSchema<unknown, OfferFailure> = v.object({
  at: TimestampSchema,
  failures: v.number(),
  message: v.string(),
})

/** A place where servers run. */
export type ToolboxId = string
export const ToolboxIdSchema: v.GenericSchema<unknown, ToolboxId> = v.string()

/** How calls to a toolbox fare, as seen by the replica that answers. */
export interface ToolboxLink {
  /** Whether calls are let through. */
  breaker: BreakerState
  /** Whether there is a second one for logs. */
  bulk: boolean
  /** Whether there is a connection for calls. */
  connected: boolean
  /** How many calls in a row got no answer from the toolbox. */
  failures: number
  retry_at?: Timestamp | null
}
export const ToolboxLinkSchema: v.GenericSchema<unknown, ToolboxLink> = v.object({
  breaker: BreakerStateSchema,
  bulk: v.boolean(),
  connected: v.boolean(),
  failures: v.number(),
  retry_at: v.nullish(TimestampSchema),
})

/** What a toolbox is and can enforce. */
export interface ToolboxReport {
  capacity?: Capacity | null
  /** Each protection, and whether this host enforces it: `own_uid`, `namespaces`, `landlock`, `seccomp`, `memory_limit`, `process_limit`, `cpu_limit`, `disk_limit`, `volume_limit`, `server_ports` (no server reaches another), `toolyard_ports` (no server reaches the listeners of its own Toolyard on its host; the detail names the ports), `egress_none`, `egress_hosts`, `volumes`, `container_http`, `path_grants`, `package_egress`. */
  enforcement: Record<string, Enforcement>
  /** The engine: `process` or `docker`. */
  engine: string
  engine_failure?: EngineFailure | null
  /** The agent's environment, which chose the defaults of its settings: `development`, `staging` or `production`. Absent when the agent does not tell. */
  environment?: string | null
  /** Where on its host paths may be granted to servers, as listed and as what that leads to when the agent starts: each path with everything in it; one that ends with `/*` means what lies in it, but no dot files, and not the path itself. Absent when the agent does not tell: then it alone knows. */
  grantable_paths?: string[] | null
  /** Revisions that ran there before the host had such a list: it lets them see other paths too. */
  granted_before?: RevisionId[]
  /** Operating system and architecture, such as `linux-x86_64`. */
  platform: string
  /** Runtimes found and their versions, such as `node -> 20.20.2`. */
  runtimes: Record<string, string>
}
export const ToolboxReportSchema: v.GenericSchema<unknown, ToolboxReport> = v.object({
  capacity: v.nullish(CapacitySchema),
  enforcement: v.record(v.string(), EnforcementSchema),
  engine: v.string(),
  engine_failure: v.nullish(EngineFailureSchema),
  environment: v.nullish(v.string()),
  grantable_paths: v.nullish(v.array(v.string())),
  granted_before: v.optional(v.array(RevisionIdSchema)),
  platform: v.string(),
  runtimes: v.record(v.string(), v.string()),
})

/** A toolbox. */
export interface Toolbox {
  /** Where its agent listens, as `host:port`; none when it dials out. */
  address?: string | null
  certificate_expires_at?: Timestamp | null
  drain?: Drain | null
  /** Whether it is to take nothing new, whether its agent is heard or not. */
  draining: boolean
  /** What runs servers there; empty until its agent was heard. */
  engine: string
  health?: Health | null
  /** Its id. */
  id: ToolboxId
  /** How many instances have not ended. */
  instances: number
  /** What the operator says of it. */
  labels: Labels
  last_seen_at?: Timestamp | null
  /** How calls to it fare from here. */
  link: ToolboxLink
  lost_at?: Timestamp | null
  /** Why, for a person. */
  message?: string
  /** Its name; `local` is the built-in one. */
  name: Name
  offer_failure?: OfferFailure | null
  /** Why, as a code. */
  reason: Reason
  /** What it is and can enforce. */
  report: ToolboxReport
  /** Since when. */
  since: Timestamp
  /** Where it is: `draining` while it is online and takes nothing new. */
  state: ToolboxState
  /** Its agent's version. */
  version?: string | null
}
export const ToolboxSchema: v.GenericSchema<unknown, Toolbox> = v.object({
  address: v.nullish(v.string()),
  certificate_expires_at: v.nullish(TimestampSchema),
  drain: v.nullish(DrainSchema),
  draining: v.boolean(),
  engine: v.string(),
  health: v.nullish(HealthSchema),
  id: ToolboxIdSchema,
  instances: v.number(),
  labels: LabelsSchema,
  last_seen_at: v.nullish(TimestampSchema),
  link: ToolboxLinkSchema,
  lost_at: v.nullish(TimestampSchema),
  message: v.optional(v.string()),
  name: NameSchema,
  offer_failure: v.nullish(OfferFailureSchema),
  reason: ReasonSchema,
  report: ToolboxReportSchema,
  since: TimestampSchema,
  state: ToolboxStateSchema,
  version: v.nullish(v.string()),
})

/** A new toolbox with what its agent needs, shown once. */
export interface EnrolledToolbox {
  /** Where the agent will reach this Toolyard, as the token says; one that listens does not dial. */
  addresses: string[]
  /** The command to run on the host. */
  command: string
  /** Until when. */
  expires_at: Timestamp
  /** The agent's token, good for one join. */
  token: string
  /** The toolbox. */
  toolbox: Toolbox
}
export const EnrolledToolboxSchema: v.GenericSchema<unknown, EnrolledToolbox> = v.object({
  addresses: v.array(v.string()),
  command: v.string(),
  expires_at: TimestampSchema,
  token: v.string(),
  toolbox: ToolboxSchema,
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageToolbox {
  /** The things on this page. */
  items: Toolbox[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageToolboxSchema: v.GenericSchema<unknown, PageToolbox> = v.object({
  items: v.array(ToolboxSchema),
  next_cursor: v.nullish(v.string()),
})

/** Make another token for a toolbox: its host was installed anew, or its certificate revoked. */
export interface RejoinToolbox {
  /** How long the token is good for; an hour when absent. */
  expires_seconds?: number | null
}

/** Change a toolbox. An absent field leaves what was there. */
export interface UpdateToolbox {
  /** Where its agent listens, as `host:port`; empty when it dials from now on. */
  address?: string | null
  labels?: Labels | null
}

/**
 * List toolboxes.
 * Needs: `toolbox:read`.
 */
export const listToolboxes: Operation<{ path: undefined; query: undefined; body: undefined }, PageToolbox> = /* @__PURE__ */ operation(
  'list_toolboxes', 'GET', '/api/v1/toolboxes', 'json', PageToolboxSchema,
)

/**
 * Make a toolbox and a token for its agent, which is shown only now.
 * Needs: `toolbox:manage`.
 */
export const enrollToolbox: Operation<{ path: undefined; query: undefined; body: EnrollToolbox }, EnrolledToolbox> = /* @__PURE__ */ operation(
  'enroll_toolbox', 'POST', '/api/v1/toolboxes', 'json', EnrolledToolboxSchema,
)

/**
 * Get a toolbox.
 * Needs: `toolbox:read`.
 */
export const getToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolbox> = /* @__PURE__ */ operation(
  'get_toolbox', 'GET', '/api/v1/toolboxes/{name}', 'json', ToolboxSchema,
)

/**
 * Change a toolbox's labels.
 * Needs: `toolbox:manage`.
 */
export const updateToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: UpdateToolbox }, Toolbox> = /* @__PURE__ */ operation(
  'update_toolbox', 'PATCH', '/api/v1/toolboxes/{name}', 'json', ToolboxSchema,
)

/**
 * Remove a toolbox: its certificates end, its instances are placed elsewhere. What runs there ends as soon as its agent hears of it; one that is away goes on until then.
 * Needs: `toolbox:manage`.
 */
export const removeToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'remove_toolbox', 'DELETE', '/api/v1/toolboxes/{name}', 'nothing', undefined,
)

/**
 * Place nothing new on a toolbox.
 * Needs: `toolbox:manage`.
 */
export const drainToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolbox> = /* @__PURE__ */ operation(
  'drain_toolbox', 'POST', '/api/v1/toolboxes/{name}/drain', 'json', ToolboxSchema,
)

/**
 * Make another token for a toolbox, which is shown only now.
 * Needs: `toolbox:manage`.
 */
export const rejoinToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: RejoinToolbox }, EnrolledToolbox> = /* @__PURE__ */ operation(
  'rejoin_toolbox', 'POST', '/api/v1/toolboxes/{name}/rejoin', 'json', EnrolledToolboxSchema,
)

/**
 * Place things on a drained toolbox again.
 * Needs: `toolbox:manage`.
 */
export const resumeToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolbox> = /* @__PURE__ */ operation(
  'resume_toolbox', 'POST', '/api/v1/toolboxes/{name}/resume', 'json', ToolboxSchema,
)

/**
 * End a toolbox's certificates and close its connections. It may join again with a new token.
 * Needs: `toolbox:manage`.
 */
export const revokeToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolbox> = /* @__PURE__ */ operation(
  'revoke_toolbox', 'POST', '/api/v1/toolboxes/{name}/revoke', 'json', ToolboxSchema,
)
