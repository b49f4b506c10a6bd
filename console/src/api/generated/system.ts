// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { TimestampSchema, type Timestamp } from './shared'

/** How the last run of a loop went. */
export interface LoopState {
  /** When the run ended. */
  at: Timestamp
  /** Why it failed, if it did. */
  error?: string | null
  /** Its name. */
  name: string
}
export const LoopStateSchema: v.GenericSchema<unknown, LoopState> = v.object({
  at: TimestampSchema,
  error: v.nullish(v.string()),
  name: v.string(),
})

/** One part of being ready. */
export interface ReadinessPart {
  /** What was found, for a person. */
  message: string
  /** Whether it is. */
  ready: boolean
  /** Since when it is as it is, as far as this replica saw. */
  since: Timestamp
}
export const ReadinessPartSchema: v.GenericSchema<unknown, ReadinessPart> = v.object({
  message: v.string(),
  ready: v.boolean(),
  since: TimestampSchema,
})

/** `GET /api/v1/readiness`: whether the replica that answers is ready, in three parts that fail apart. */
export interface Readiness {
  /** The loops that make servers what they should be run. */
  control_plane: ReadinessPart
  /**
   * Calls are served: the gateway's picture of the control plane is fresh enough. It stays so for a while with the
   * database away.
   */
  gateway: ReadinessPart
  /** Those loops, and how the last run of each went. */
  loops: LoopState[]
  /** What is written lasts: a row was written and read back through another connection, a few seconds ago. */
  writes: ReadinessPart
}
export const ReadinessSchema: v.GenericSchema<unknown, Readiness> = v.object({
  control_plane: ReadinessPartSchema,
  gateway: ReadinessPartSchema,
  loops: v.array(LoopStateSchema),
  writes: ReadinessPartSchema,
})

/** `GET /api/v1/version`. */
export interface Version {
  /** The API's version. */
  api: string
  /** `sqlite` or `postgres`. */
  database: string
  /** How it runs: `bare`, `systemd`, `container` or `cluster`. */
  deployment_target: string
  /** `development`, `staging` or `production`. */
  environment: string
  /** The program's version. */
  version: string
}
export const VersionSchema: v.GenericSchema<unknown, Version> = v.object({
  api: v.string(),
  database: v.string(),
  deployment_target: v.string(),
  environment: v.string(),
  version: v.string(),
})

/**
 * Get this API's description (OpenAPI 3.1).
 * Needs: `public`.
 */
export const getOpenapi: Operation<{ path: undefined; query: undefined; body: undefined }, unknown> = /* @__PURE__ */ operation(
  'get_openapi', 'GET', '/api/v1/openapi.json', 'json', v.unknown(),
)

/**
 * Tell whether the replica that answers is ready, in three parts: the gateway serves, writes last, the control plane
 * works.
 * Needs: `toolbox:read`.
 */
export const getReadiness: Operation<{ path: undefined; query: undefined; body: undefined }, Readiness> = /* @__PURE__ */ operation(
  'get_readiness', 'GET', '/api/v1/readiness', 'json', ReadinessSchema,
)

/**
 * Tell the version, the environment and how Toolyard runs here.
 * Needs: `public`.
 */
export const getVersion: Operation<{ path: undefined; query: undefined; body: undefined }, Version> = /* @__PURE__ */ operation(
  'get_version', 'GET', '/api/v1/version', 'json', VersionSchema,
)
