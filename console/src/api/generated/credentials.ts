// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { CredentialIdSchema, NameSchema, TimestampSchema, type CredentialId, type Name, type Secret, type Timestamp } from './shared'

/** A credential, without its secret. */
export interface Credential {
  /** When it was created. */
  created_at: Timestamp
  /** For people. */
  description?: string
  /** Its id. */
  id: CredentialId
  /** Its name. */
  name: Name
  /**
   * The servers of which something still runs with an older secret; a restart of the server brings the current one. Absent
   * where the control plane is of an earlier version, which does not tell: then it is not known.
   */
  outdated_in?: Name[] | null
  /**
   * The servers of which something runs whose agent, of an earlier version, does not tell with which secret it was started; a
   * restart of the server brings the current one. Absent like `outdated_in`.
   */
  unknown_in?: Name[] | null
  /**
   * Whether no server gets its secret, because it was sealed with another master key than the one that is here: it must be set
   * again.
   */
  unreadable?: boolean
  /** When its secret was last set. */
  updated_at: Timestamp
  /** The servers whose current revision refers to it. */
  used_by: Name[]
  /** Rises with each new secret. */
  version: number
}
export const CredentialSchema: v.GenericSchema<unknown, Credential> = v.object({
  created_at: TimestampSchema,
  description: v.optional(v.string()),
  id: CredentialIdSchema,
  name: NameSchema,
  outdated_in: v.nullish(v.array(NameSchema)),
  unknown_in: v.nullish(v.array(NameSchema)),
  unreadable: v.optional(v.boolean()),
  updated_at: TimestampSchema,
  used_by: v.array(NameSchema),
  version: v.number(),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageCredential {
  /** The things on this page. */
  items: Credential[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageCredentialSchema: v.GenericSchema<unknown, PageCredential> = v.object({
  items: v.array(CredentialSchema),
  next_cursor: v.nullish(v.string()),
})

/** Create a credential, or give one a new secret. */
export interface PutCredential {
  /** For people. */
  description?: string | null
  /** The secret, at most 64 KiB. */
  secret: Secret
}

/**
 * List credentials, without their secrets.
 * Needs: `credential:read`.
 */
export const listCredentials: Operation<{ path: undefined; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageCredential> = /* @__PURE__ */ operation(
  'list_credentials', 'GET', '/api/v1/credentials', 'json', PageCredentialSchema,
)

/**
 * Get a credential, without its secret.
 * Needs: `credential:read`.
 */
export const getCredential: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Credential> = /* @__PURE__ */ operation(
  'get_credential', 'GET', '/api/v1/credentials/{name}', 'json', CredentialSchema,
)

/**
 * Create a credential, or give it a new secret.
 * Needs: `credential:manage`.
 */
export const putCredential: Operation<{ path: {
  name: Name
}; query: undefined; body: PutCredential }, Credential> = /* @__PURE__ */ operation(
  'put_credential', 'PUT', '/api/v1/credentials/{name}', 'json', CredentialSchema,
)

/**
 * Delete a credential that no server uses.
 * Needs: `credential:manage`.
 */
export const deleteCredential: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_credential', 'DELETE', '/api/v1/credentials/{name}', 'nothing', undefined,
)
