// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { ActionSchema, RoleSchema, type Action, type Role } from './enums'
import { NameSchema, TimestampSchema, type Name, type Secret, type Timestamp } from './shared'

/** Give oneself another password. */
export interface ChangePassword {
  /** The password until now. */
  current_password: Secret
  /** The password from now on. */
  new_password: Secret
}

/** Who is signed in, or which key is used. */
export interface Session {
  /** What may be done, so that an interface can show only that. */
  actions: Action[]
  /** E-mail address, or the key's name. */
  display: string
  expires_at?: Timestamp | null
  /** `user` or `api_key`. */
  kind: string
  /** The organization. */
  organization: Name
  /** The role there. */
  role: Role
}
export const SessionSchema: v.GenericSchema<unknown, Session> = v.object({
  actions: v.array(ActionSchema),
  display: v.string(),
  expires_at: v.nullish(TimestampSchema),
  kind: v.string(),
  organization: NameSchema,
  role: RoleSchema,
})

/** Sign in with a password. */
export interface SignIn {
  /** The e-mail address. */
  email: string
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
 * Sign in with e-mail address and password; the session comes as a cookie.
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
 * Change one's own password; every session of the old one ends, this one too.
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
  /** The resource: `organization`, `server/NAME`, `toolset/NAME`; `organization` when absent. */
  resource?: string
  /** About a member, by id or e-mail address. */
  member?: string
  /** About an API key, by id or name. */
  key?: string
}; body: undefined }, Why> = /* @__PURE__ */ operation(
  'why', 'GET', '/api/v1/why', 'json', WhySchema,
)
