// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ActionSchema, RoleSchema, type Action, type Role } from './enums'
import { NameSchema, TimestampSchema, type Name, type Secret, type Timestamp } from './shared'

/** Give oneself another password. */
export interface ChangePassword {
  /** The password until now. */
  current_password: Secret
  /** The e-mail address from now on; it stays as it is when absent. */
  email?: string | null
  /** The password from now on. */
  new_password: Secret
  /** Whether the API keys that one made end too, and those made with them (`GET /api/v1/keys?made_by=me`). */
  revoke_keys?: boolean
}

/** Give the password again, for what a session may do only shortly after. */
export interface Reauthenticate {
  /** The password. */
  password: Secret
}

/** Who is signed in, or which key is used. */
export interface Session {
  /**
   * Which account this is: the person in this organization, or the key. A request that carries it as
   * `X-Toolyard-Account` is refused with `account_changed` when it comes from another one, as after somebody else signed
   * in in the same browser.
   */
  account?: string
  /** What may be done, so that an interface can show only that. */
  actions: Action[]
  authenticated_at?: Timestamp | null
  /** E-mail address, or the key's name. */
  display: string
  expires_at?: Timestamp | null
  /** Whether the password is still the one that Toolyard made up at its first start: ask for another. */
  first_run?: boolean
  /** `user` or `api_key`. */
  kind: string
  /** The organization. */
  organization: Name
  /** The role there. */
  role: Role
}
export const SessionSchema: v.GenericSchema<unknown, Session> = v.object({
  account: v.optional(v.string()),
  actions: v.array(ActionSchema),
  authenticated_at: v.nullish(TimestampSchema),
  display: v.string(),
  expires_at: v.nullish(TimestampSchema),
  first_run: v.optional(v.boolean()),
  kind: v.string(),
  organization: NameSchema,
  role: RoleSchema,
})

/**
 * A key of a session, for MCP calls of the web console's playground. It has the member's own role, is good for MCP
 * alone and for at most 15 minutes, and ends with the session.
 */
export interface SessionMcpKey {
  /** When it ends; get another one before. */
  expires_at: Timestamp
  /** The key, to be sent as `Authorization: Bearer <key>` to MCP URLs of this Toolyard. */
  key: string
}
export const SessionMcpKeySchema: v.GenericSchema<unknown, SessionMcpKey> = v.object({
  expires_at: TimestampSchema,
  key: v.string(),
})

/** Sign in with a password. */
export interface SignIn {
  /** The e-mail address. */
  email: string
  /** The name of the organization; without it, where this address has been a member longest. */
  organization?: string | null
  /** The password. */
  password: Secret
}

/** Why something is allowed or refused. */
export interface Why {
  /** What they would do. */
  action: Action
  /** The decision. */
  allowed: boolean
  /** The policies that decided, by name, and what they say. */
  because: string[]
  /** Who was asked about. */
  principal: string
  /** To what. */
  resource: string
}
export const WhySchema: v.GenericSchema<unknown, Why> = v.object({
  action: ActionSchema,
  allowed: v.boolean(),
  because: v.array(v.string()),
  principal: v.string(),
  resource: v.string(),
})

/**
 * Tell who is asking, and what they may do.
 * Needs: `signed_in`.
 */
export const getSession: Operation<{ path: undefined; query: undefined; body: undefined }, Session> = /* @__PURE__ */ operation(
  'get_session', 'GET', '/api/v1/session', 'json', SessionSchema,
)

/**
 * Sign in with e-mail address and password; the session comes as a cookie, and the one that the request came with ends.
 * Needs: `public`.
 */
export const createSession: Operation<{ path: undefined; query: undefined; body: SignIn }, Session> = /* @__PURE__ */ operation(
  'create_session', 'POST', '/api/v1/session', 'json', SessionSchema,
)

/**
 * Sign out.
 * Needs: `signed_in`.
 */
export const deleteSession: Operation<{ path: undefined; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_session', 'DELETE', '/api/v1/session', 'nothing', undefined,
)

/**
 * Give the password again: making API keys and members in a session needs it to have been given at most five minutes ago.
 * Needs: `signed_in`.
 */
export const reauthenticate: Operation<{ path: undefined; query: undefined; body: Reauthenticate }, Session> = /* @__PURE__ */ operation(
  'reauthenticate', 'POST', '/api/v1/session/authentication', 'json', SessionSchema,
)

/**
 * Get a key for MCP calls from the browser, as the member who is signed in: for the console's playground.
 * Needs: `signed_in`.
 */
export const createMcpKey: Operation<{ path: undefined; query: undefined; body: undefined }, SessionMcpKey> = /* @__PURE__ */ operation(
  'create_mcp_key', 'POST', '/api/v1/session/mcp-key', 'json', SessionMcpKeySchema,
)

/**
 * Change one's own password, and with it one's e-mail address if wanted; every session ends, this one too, and with
 * `revoke_keys` the API keys that one made.
 * Needs: `signed_in`.
 */
export const changePassword: Operation<{ path: undefined; query: undefined; body: ChangePassword }, undefined> = /* @__PURE__ */ operation(
  'change_password', 'PUT', '/api/v1/session/password', 'nothing', undefined,
)

/**
 * Ask why something is allowed or refused, to the caller, a member or a key.
 * Needs: `policy:explain`.
 */
export const why: Operation<{ path: undefined; query: {
  /** The action, such as `server:deploy`. */
  action: Action
  /**
   * The resource: `organization`, `server/NAME`, `toolset/NAME`, `credential/NAME`, `api_key/own`, `api_key/other`,
   * `member/owner` or `member/other`; `organization` when absent.
   */
  resource?: string
  /** About a member, by id or e-mail address. */
  member?: string
  /** About an API key, by id or name. */
  key?: string
}; body: undefined }, Why> = /* @__PURE__ */ operation(
  'why', 'GET', '/api/v1/why', 'json', WhySchema,
)
