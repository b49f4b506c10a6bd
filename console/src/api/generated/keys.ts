// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ActionSchema, RoleSchema, type Action, type Role } from './enums'
import { ApiKeyIdSchema, NameSchema, TimestampSchema, type ApiKeyId, type Name, type Timestamp } from './shared'

/** What an API key is narrowed to. A request must pass both the role's policies and this. */
export interface KeyScope {
  /** Only these actions; empty for all of the role's. */
  actions?: Action[]
  /** Only these servers and toolsets by name; empty for all. Applies to actions about one of them. */
  resources?: Name[]
}
export const KeyScopeSchema: v.GenericSchema<unknown, KeyScope> = v.object({
  actions: v.optional(v.array(ActionSchema)),
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
  /** The first characters, to recognise it. */
  prefix: string
  revoked_at?: Timestamp | null
  /** Its role. */
  role: Role
  scope?: KeyScope | null
}
export const ApiKeySchema: v.GenericSchema<unknown, ApiKey> = v.object({
  created_at: TimestampSchema,
  created_by: v.string(),
  expires_at: v.nullish(TimestampSchema),
  id: ApiKeyIdSchema,
  last_used_at: v.nullish(TimestampSchema),
  name: NameSchema,
  prefix: v.string(),
  revoked_at: v.nullish(TimestampSchema),
  role: RoleSchema,
  scope: v.nullish(KeyScopeSchema),
})

/** Make an API key. */
export interface CreateApiKey {
  /** Days until it ends; 90 when absent, 0 for never. A key made with a key ends no later than that. */
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
  /** The first characters, to recognise it. */
  prefix: string
  revoked_at?: Timestamp | null
  /** Its role. */
  role: Role
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
  prefix: v.string(),
  revoked_at: v.nullish(TimestampSchema),
  role: RoleSchema,
  scope: v.nullish(KeyScopeSchema),
  key: v.string(),
})

/** A page of a list. `next_cursor` is passed back as `cursor` to get the next page. */
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

/**
 * List API keys: all, or only one's own.
 * Needs: `key:read`.
 */
export const listKeys: Operation<{ path: undefined; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
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
 * Revoke an API key.
 * Needs: `key:manage`.
 */
export const deleteKey: Operation<{ path: {
  id: ApiKeyId
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_key', 'DELETE', '/api/v1/keys/{id}', 'nothing', undefined,
)
