// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'

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
 * Tell the version, the environment and how Toolyard runs here.
 * Needs: `public`.
 */
export const getVersion: Operation<{ path: undefined; query: undefined; body: undefined }, Version> = /* @__PURE__ */ operation(
  'get_version', 'GET', '/api/v1/version', 'json', VersionSchema,
)
