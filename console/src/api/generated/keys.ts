// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ActionSchema, RoleSchema, type Action, type Role } from './enums'
import { ApiKeyIdSchema, NameSchema, TimestampSchema, type ApiKeyId, type Name, type Timestamp } from './shared'

/** What an API key is narrowed to. A request must pass both the role's policies and this. */
export interface KeyScope {
  /** Only these actions; empty for all of the role's. */
  actions?: Action[]
  /**
   * Only these credentials by name may be bound to servers. Empty for all, but for none when `resources` narrows the
   * key: whoever may deploy one server could otherwise read every secret through it.
   */
  credentials?: Name[]
  /** Only these servers and toolsets by name; empty for all. Applies to actions about one of them. */
  resources?: Name[]
}
export const KeyScopeSchema: v.GenericSchema<unknown, KeyScope> = v.object({
  actions: v.optional(v.array(ActionSchema)),
  credentials: v.optional(v.array(NameSchema)),
  resources: v.optional(v.array(NameSchema)),
})

/** An API key, without the key itself. */
export interface ApiKey {
  /** When. */
  created_at: Timestamp
  /** Who made it. */
  created_by: string
  expires_at?: Timestamp | null
  /** Its id. */
  id: ApiKeyId
  last_used_at?: Timestamp | null
  /** Its name. */
  name: Name
  parent?: ApiKeyId | null
  /** The first characters, to recognise it. */
  prefix: string
  previous_ends_at?: Timestamp | null
  revoked_at?: Timestamp | null
  /** Its role. */
  role: Role
  rotated_at?: Timestamp | null
  scope?: KeyScope | null
}
export const ApiKeySchema: v.GenericSchema<unknown, ApiKey> = v.object({
  created_at: TimestampSchema,
  created_by: v.string(),
  expires_at: v.nullish(TimestampSchema),
  id: ApiKeyIdSchema,
  last_used_at: v.nullish(TimestampSchema),
  name: NameSchema,
  parent: v.nullish(ApiKeyIdSchema),
  prefix: v.string(),
  previous_ends_at: v.nullish(TimestampSchema),
  revoked_at: v.nullish(TimestampSchema),
  role: RoleSchema,
  rotated_at: v.nullish(TimestampSchema),
  scope: v.nullish(KeyScopeSchema),
})

/** Make an API key. */
export interface CreateApiKey {
  /** Days until it ends, 1 to 3650; 90 when absent. A key made with a key ends no later than that. */
  expires_in_days?: number | null
  /** Its name. */
  name: Name
  /** Its role, at most the maker's own. */
  role: Role
  scope?: KeyScope | null
}

/** A new key: the only time the key is shown. */
export interface CreatedApiKey {
  /** When. */
  created_at: Timestamp
  /** Who made it. */
  created_by: string
  expires_at?: Timestamp | null
  /** Its id. */
  id: ApiKeyId
  last_used_at?: Timestamp | null
  /** Its name. */
  name: Name
  parent?: ApiKeyId | null
  /** The first characters, to recognise it. */
  prefix: string
  previous_ends_at?: Timestamp | null
  revoked_at?: Timestamp | null
  /** Its role. */
  role: Role
  rotated_at?: Timestamp | null
  scope?: KeyScope | null
  /** The key: `ty_` and 64 hex digits (256 random bits). */
  key: string
}
export const CreatedApiKeySchema: v.GenericSchema<unknown, CreatedApiKey> = v.object({
  created_at: TimestampSchema,
  created_by: v.string(),
  expires_at: v.nullish(TimestampSchema),
  id: ApiKeyIdSchema,
  last_used_at: v.nullish(TimestampSchema),
  name: NameSchema,
  parent: v.nullish(ApiKeyIdSchema),
  prefix: v.string(),
  previous_ends_at: v.nullish(TimestampSchema),
  revoked_at: v.nullish(TimestampSchema),
  role: RoleSchema,
  rotated_at: v.nullish(TimestampSchema),
  scope: v.nullish(KeyScopeSchema),
  key: v.string(),
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageApiKey {
  /** The things on this page. */
  items: ApiKey[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageApiKeySchema: v.GenericSchema<unknown, PageApiKey> = v.object({
  items: v.array(ApiKeySchema),
  next_cursor: v.nullish(v.string()),
})

/** Give an API key another secret. It keeps its id, its name and what it may do, and the keys made with it. */
export interface RotateApiKey {
  /** Days until the key ends, from now; when absent its end stays. A key made with a key ends no later than that. */
  expires_in_days?: number | null
  /**
   * Seconds for which the secret until now still calls tools and reads, at most 604800 (7 days); it ends at once when
   * absent.
   */
  overlap_seconds?: number | null
}

/**
 * List API keys: all, or only one's own. With `made_by` those of somebody, and the keys made with these.
 * Needs: `key:read`.
 */
export const listKeys: Operation<{ path: undefined; query: {
  /** How many keys at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
  /** Only keys that were made by `me`, `user:<id>` or `api_key:<id>`, and those made with these keys. */
  made_by?: string
  /** Whether to leave out keys that were revoked or have ended. */
  active?: boolean
}; body: undefined }, PageApiKey> = /* @__PURE__ */ operation(
  'list_keys', 'GET', '/api/v1/keys', 'json', PageApiKeySchema,
)

/**
 * Create an API key. The answer is the only time it is shown.
 * Needs: `key:manage`.
 */
export const createKey: Operation<{ path: undefined; query: undefined; body: CreateApiKey }, CreatedApiKey> = /* @__PURE__ */ operation(
  'create_key', 'POST', '/api/v1/keys', 'json', CreatedApiKeySchema,
)

/**
 * Get an API key, without the key itself.
 * Needs: `key:read`.
 */
export const getKey: Operation<{ path: {
  id: ApiKeyId
}; query: undefined; body: undefined }, ApiKey> = /* @__PURE__ */ operation(
  'get_key', 'GET', '/api/v1/keys/{id}', 'json', ApiKeySchema,
)

/**
 * Revoke an API key, and every key made with it: `GET /api/v1/keys?made_by=api_key:<id>&active=true` lists those first.
 * Needs: `key:manage`.
 */
export const deleteKey: Operation<{ path: {
  id: ApiKeyId
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_key', 'DELETE', '/api/v1/keys/{id}', 'nothing', undefined,
)

/**
 * Give an API key another secret. The answer is the only time it is shown.
 * Needs: `key:manage`.
 */
export const rotateKey: Operation<{ path: {
  id: ApiKeyId
}; query: undefined; body: RotateApiKey }, CreatedApiKey> = /* @__PURE__ */ operation(
  'rotate_key', 'POST', '/api/v1/keys/{id}/rotate', 'json', CreatedApiKeySchema,
)
