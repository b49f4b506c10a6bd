// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { RoleSchema, type Role } from './enums'
import { TimestampSchema, UserIdSchema, type Secret, type Timestamp, type UserId } from './shared'

/** Add a member with a first password. */
export interface CreateMember {
  /** The e-mail address. */
  email: string
  /** The first password, 12 to 128 characters. */
  password: Secret
  /** The role. */
  role: Role
}

/** A member. */
export interface Member {
  /** Since when. */
  created_at: Timestamp
  /** The e-mail address. */
  email: string
  /** The person. */
  id: UserId
  last_sign_in_at?: Timestamp | null
  /** The role in this organization. */
  role: Role
}
export const MemberSchema: v.GenericSchema<unknown, Member> = v.object({
  created_at: TimestampSchema,
  email: v.string(),
  id: UserIdSchema,
  last_sign_in_at: v.nullish(TimestampSchema),
  role: RoleSchema,
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageMember {
  /** The things on this page. */
  items: Member[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageMemberSchema: v.GenericSchema<unknown, PageMember> = v.object({
  items: v.array(MemberSchema),
  next_cursor: v.nullish(v.string()),
})

/** Change a member. */
export interface UpdateMember {
  password?: Secret | null
  /**
   * Whether the API keys that the member made end too, and those made with them
   * (`GET /api/v1/keys?made_by=user:<id>`).
   */
  revoke_keys?: boolean
  role?: Role | null
}

/**
 * List the members.
 * Needs: `member:read`.
 */
export const listMembers: Operation<{ path: undefined; query: undefined; body: undefined }, PageMember> = /* @__PURE__ */ operation(
  'list_members', 'GET', '/api/v1/members', 'json', PageMemberSchema,
)

/**
 * Add a member with a first password. Needs every action of the member's role, which a narrowed key may lack. In a session
 * one's own password must have been given in the last five minutes.
 * Needs: `member:manage`.
 */
export const createMember: Operation<{ path: undefined; query: undefined; body: CreateMember }, Member> = /* @__PURE__ */ operation(
  'create_member', 'POST', '/api/v1/members', 'json', MemberSchema,
)

/**
 * Get a member.
 * Needs: `member:read`.
 */
export const getMember: Operation<{ path: {
  id: UserId
}; query: undefined; body: undefined }, Member> = /* @__PURE__ */ operation(
  'get_member', 'GET', '/api/v1/members/{id}', 'json', MemberSchema,
)

/**
 * Change a member's role or password. Needs every action of the member's role, until now and from now on, which a narrowed
 * key may lack. In a session one's own password must have been given in the last five minutes.
 * Needs: `member:manage`.
 */
export const updateMember: Operation<{ path: {
  id: UserId
}; query: undefined; body: UpdateMember }, Member> = /* @__PURE__ */ operation(
  'update_member', 'PATCH', '/api/v1/members/{id}', 'json', MemberSchema,
)

/**
 * Remove a member, with their sessions and keys.
 * Needs: `member:manage`.
 */
export const deleteMember: Operation<{ path: {
  id: UserId
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_member', 'DELETE', '/api/v1/members/{id}', 'nothing', undefined,
)
