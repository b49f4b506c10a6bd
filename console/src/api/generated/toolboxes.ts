// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ReasonSchema, ToolboxStateSchema, type Reason, type ToolboxState } from './enums'
import { NameSchema, TimestampSchema, type Name, type Timestamp } from './shared'

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

/** Make a toolbox and a token for its agent. */
export interface EnrollToolbox {
  /** Its name. */
  name: Name
}

/** A place where servers run. */
export type ToolboxId = string
export const ToolboxIdSchema: v.GenericSchema<unknown, ToolboxId> = v.string()

/** What a toolbox is and can enforce. */
export interface ToolboxReport {
  /** Each protection, and whether this host enforces it: `own_uid`, `namespaces`, `landlock`, `memory_limit`, `process_limit`. */
  enforcement: Record<string, Enforcement>
  /** The engine: `process` for now. */
  engine: string
  /** Operating system and architecture, such as `linux-x86_64`. */
  platform: string
  /** Runtimes found and their versions, such as `node -> 20.20.2`. */
  runtimes: Record<string, string>
}
export const ToolboxReportSchema: v.GenericSchema<unknown, ToolboxReport> = v.object({
  enforcement: v.record(v.string(), EnforcementSchema),
  engine: v.string(),
  platform: v.string(),
  runtimes: v.record(v.string(), v.string()),
})

/** A toolbox. */
export interface Toolbox {
  /** Its agent's version. */
  agent_version?: string | null
  /** Its id. */
  id: ToolboxId
  /** How many instances have not ended. */
  instances: number
  last_seen_at?: Timestamp | null
  /** Why, for a person. */
  message?: string
  /** Its name; `local` is the built-in one. */
  name: Name
  /** Why, as a code. */
  reason: Reason
  /** What it is and can enforce. */
  report: ToolboxReport
  /** Since when. */
  since: Timestamp
  /** Where it is. */
  state: ToolboxState
}
export const ToolboxSchema: v.GenericSchema<unknown, Toolbox> = v.object({
  agent_version: v.nullish(v.string()),
  id: ToolboxIdSchema,
  instances: v.number(),
  last_seen_at: v.nullish(TimestampSchema),
  message: v.optional(v.string()),
  name: NameSchema,
  reason: ReasonSchema,
  report: ToolboxReportSchema,
  since: TimestampSchema,
  state: ToolboxStateSchema,
})

/** A new toolbox with what its agent needs, shown once. */
export interface EnrolledToolbox {
  /** The command to run on the host. */
  command: string
  /** The agent's token. */
  token: string
  /** The toolbox. */
  toolbox: Toolbox
}
export const EnrolledToolboxSchema: v.GenericSchema<unknown, EnrolledToolbox> = v.object({
  command: v.string(),
  token: v.string(),
  toolbox: ToolboxSchema,
})

/** A page of a list. `next_cursor` is passed back as `cursor` to get the next page. */
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
 * Remove a toolbox: its agent's token ends, its instances are placed elsewhere.
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
 * Place things on a drained toolbox again.
 * Needs: `toolbox:manage`.
 */
export const resumeToolbox: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolbox> = /* @__PURE__ */ operation(
  'resume_toolbox', 'POST', '/api/v1/toolboxes/{name}/resume', 'json', ToolboxSchema,
)
