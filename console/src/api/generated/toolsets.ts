// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { NameSchema, TimestampSchema, ToolsetIdSchema, type Name, type Timestamp, type ToolsetId } from './shared'

/** What a toolset says of a tool. */
export interface ToolOverride {
  /** Its description; else the server's. */
  description?: string | null
  /** Its name in the toolset; else `{server}__{tool}`. */
  name?: string | null
}
export const ToolOverrideSchema: v.GenericSchema<unknown, ToolOverride> = v.object({
  description: v.nullish(v.string()),
  name: v.nullish(v.string()),
})

/** A server in a toolset. */
export interface ToolsetMember {
  /** What clients are told of a tool instead of what its server says, by the tool's name there. */
  overrides?: Record<string, ToolOverride>
  /** The server. */
  server: Name
  /** Only these tools, as the server names them; `None` for all, also those it adds later. */
  tools?: string[] | null
}
export const ToolsetMemberSchema: v.GenericSchema<unknown, ToolsetMember> = v.object({
  overrides: v.optional(v.record(v.string(), ToolOverrideSchema)),
  server: NameSchema,
  tools: v.nullish(v.array(v.string())),
})

/** A toolset. */
export interface Toolset {
  /** When it was created. */
  created_at: Timestamp
  /** Shown to clients. */
  description: string
  /** Changes with every change. */
  etag: string
  /** Its id. */
  id: ToolsetId
  /** The MCP URL's path on this Toolyard. */
  mcp_path: string
  /** Its servers, and which of their tools. */
  members: ToolsetMember[]
  /** Its name. */
  name: Name
  /** When it was last changed. */
  updated_at: Timestamp
}
export const ToolsetSchema: v.GenericSchema<unknown, Toolset> = v.object({
  created_at: TimestampSchema,
  description: v.string(),
  etag: v.string(),
  id: ToolsetIdSchema,
  mcp_path: v.string(),
  members: v.array(ToolsetMemberSchema),
  name: NameSchema,
  updated_at: TimestampSchema,
})

/**
 * A page of a list. `next_cursor` is passed back as `cursor` to get the next page. A page of large things may hold fewer
 * than `limit` though more follow.
 */
export interface PageToolset {
  /** The things on this page. */
  items: Toolset[]
  /** Where the next page starts; absent on the last one. */
  next_cursor?: string | null
}
export const PageToolsetSchema: v.GenericSchema<unknown, PageToolset> = v.object({
  items: v.array(ToolsetSchema),
  next_cursor: v.nullish(v.string()),
})

/** Make or replace a toolset. */
export interface PutToolset {
  /** Shown to clients. */
  description?: string
  /** Its servers, and which of their tools. */
  members: ToolsetMember[]
  /** Its name, unique among servers and toolsets. */
  name: Name
}

/**
 * List toolsets by name.
 * Needs: `toolset:read`.
 */
export const listToolsets: Operation<{ path: undefined; query: {
  /** How many things at most, 1 to 500; 100 when absent. */
  limit?: number
  /** `next_cursor` of the page before. */
  cursor?: string
}; body: undefined }, PageToolset> = /* @__PURE__ */ operation(
  'list_toolsets', 'GET', '/api/v1/toolsets', 'json', PageToolsetSchema,
)

/**
 * Create a toolset.
 * Needs: `toolset:manage`.
 */
export const createToolset: Operation<{ path: undefined; query: undefined; body: PutToolset }, Toolset> = /* @__PURE__ */ operation(
  'create_toolset', 'POST', '/api/v1/toolsets', 'json', ToolsetSchema,
)

/**
 * Get a toolset.
 * Needs: `toolset:read`.
 */
export const getToolset: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, Toolset> = /* @__PURE__ */ operation(
  'get_toolset', 'GET', '/api/v1/toolsets/{name}', 'json', ToolsetSchema,
)

/**
 * Replace what a toolset holds.
 * Needs: `toolset:manage`.
 */
export const replaceToolset: Operation<{ path: {
  name: Name
}; query: undefined; body: PutToolset }, Toolset> = /* @__PURE__ */ operation(
  'replace_toolset', 'PUT', '/api/v1/toolsets/{name}', 'json', ToolsetSchema,
)

/**
 * Delete a toolset; its servers stay.
 * Needs: `toolset:manage`.
 */
export const deleteToolset: Operation<{ path: {
  name: Name
}; query: undefined; body: undefined }, undefined> = /* @__PURE__ */ operation(
  'delete_toolset', 'DELETE', '/api/v1/toolsets/{name}', 'nothing', undefined,
)
