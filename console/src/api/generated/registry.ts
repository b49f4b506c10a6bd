// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { type EntryName } from './shared'

/**
 * List public servers, as the official registry does.
 * Needs: `public`.
 */
export const listRegistryServers: Operation<{ path: undefined; query: {
  /** `nextCursor` of the page before. */
  cursor?: string
  /** How many at most, 1 to 100; 30 when absent. */
  limit?: number
  /** Only names that contain this. */
  search?: string
  /** Only what changed at or after this (RFC 3339); deleted ones are included. */
  updated_since?: string
  /** `latest`, or one version. */
  version?: string
  /** Deleted ones too. */
  include_deleted?: boolean
}; body: undefined }, unknown> = /* @__PURE__ */ operation(
  'list_registry_servers', 'GET', '/v0.1/servers', 'json', v.unknown(),
)

/**
 * List a public server's versions, as the official registry does.
 * Needs: `public`.
 */
export const listServerVersions: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
}; query: {
  /** `nextCursor` of the page before; the official registry has none here, and gives all at once. */
  cursor?: string
}; body: undefined }, unknown> = /* @__PURE__ */ operation(
  'list_server_versions', 'GET', '/v0.1/servers/{name}/versions', 'json', v.unknown(),
)

/**
 * Get one version of a public server, or `latest`, as the official registry does.
 * Needs: `public`.
 */
export const getServerVersion: Operation<{ path: {
  /** `namespace%2Fname` */
  name: EntryName
  version: string
}; query: undefined; body: undefined }, unknown> = /* @__PURE__ */ operation(
  'get_server_version', 'GET', '/v0.1/servers/{name}/versions/{version}', 'json', v.unknown(),
)
