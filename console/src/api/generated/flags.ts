// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'

/** A feature flag's rule: for one organization, else by percentage, else for everyone. */
export interface FlagRule {
  /** On or off for everyone. */
  everyone?: boolean | null
  /** On or off for organizations by name. */
  organizations?: Record<string, boolean>
  /** On for this share of organizations, 0 to 100; the same ones as it grows. */
  percentage?: number | null
}
export const FlagRuleSchema: v.GenericSchema<unknown, FlagRule> = v.object({
  everyone: v.nullish(v.boolean()),
  organizations: v.optional(v.record(v.string(), v.boolean())),
  percentage: v.nullish(v.number()),
})

/** A feature flag as it applies to the asking organization. */
export interface Flag {
  /** What it is when nothing is set. */
  default: boolean
  /** What it switches. */
  description: string
  /** Whether it is on for the asking organization. */
  enabled: boolean
  /** Its name. */
  name: string
  rule?: FlagRule | null
}
export const FlagSchema: v.GenericSchema<unknown, Flag> = v.object({
  default: v.boolean(),
  description: v.string(),
  enabled: v.boolean(),
  name: v.string(),
  rule: v.nullish(FlagRuleSchema),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageFlag {
  /** The things on this page. */
  items: Flag[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageFlagSchema: v.GenericSchema<unknown, PageFlag> = v.object({
  items: v.array(FlagSchema),
  next_cursor: v.nullish(v.string()),
})

/**
 * List the feature flags as they apply here.
 * Needs: `flag:read`.
 */
export const listFlags: Operation<{ path: undefined; query: undefined; body: undefined }, PageFlag> = /* @__PURE__ */ operation(
  'list_flags', 'GET', '/api/v1/flags', 'json', PageFlagSchema,
)

/**
 * Set a feature flag's rule; an empty rule restores the default.
 * Needs: `flag:manage`.
 */
export const setFlag: Operation<{ path: {
  name: string
}; query: undefined; body: FlagRule }, Flag> = /* @__PURE__ */ operation(
  'set_flag', 'PUT', '/api/v1/flags/{name}', 'json', FlagSchema,
)
