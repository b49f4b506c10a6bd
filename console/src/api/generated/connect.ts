// Generated from openapi/public.json by `npm run generate`: do not edit.
import * as v from 'valibot'
import { type Operation, operation } from '../operation'
import { NameSchema, type Name } from './shared'

/** Where a client keeps its configuration. */
export interface ConnectFile {
  /** The path, as text for a person. */
  path: string
  /** `macos`, `windows`, `linux` or `all`. */
  system: string
}
export const ConnectFileSchema: v.GenericSchema<unknown, ConnectFile> = v.object({
  path: v.string(),
  system: v.string(),
})

/** A link that opens a client. With a key in place of the placeholder it is `prefix` and the encoded `payload`. */
export interface ConnectLink {
  /** How the payload is encoded: `base64` (and then as a part of a URL), or `percent`. */
  encoding: string
  /** The whole link, with the placeholder in it. */
  href: string
  /** The configuration as JSON, with the placeholder in it. */
  payload: string
  /** What comes before the payload. */
  prefix: string
}
export const ConnectLinkSchema: v.GenericSchema<unknown, ConnectLink> = v.object({
  encoding: v.string(),
  href: v.string(),
  payload: v.string(),
  prefix: v.string(),
})

/** How one client is connected. */
export interface ConnectClient {
  /** One command that does the same, when the client has one. */
  command?: string | null
  /** Where the snippet belongs; empty when it belongs into no file. */
  files: ConnectFile[]
  /** The snippet's format: `json`, `toml` or `shell`. */
  format: string
  /** The client, as `toolyard connect --client` takes it where it writes the file. */
  id: string
  link?: ConnectLink | null
  /** What to put there; merge it with what is in the file. */
  snippet: string
  /** Its name. */
  title: string
}
export const ConnectClientSchema: v.GenericSchema<unknown, ConnectClient> = v.object({
  command: v.nullish(v.string()),
  files: v.array(ConnectFileSchema),
  format: v.string(),
  id: v.string(),
  link: v.nullish(ConnectLinkSchema),
  snippet: v.string(),
  title: v.string(),
})

/** How to connect clients to one server or toolset. */
export interface Connect {
  /** One for each client, the most used first. */
  clients: ConnectClient[]
  /** What stands for the API key in every snippet, command and link: put the key there. */
  key_placeholder: string
  /** `server` or `toolset`. */
  kind: string
  /** The server or toolset. */
  name: Name
  /** What the client's configuration calls it. */
  server_name: string
  /** Its MCP URL. */
  url: string
}
export const ConnectSchema: v.GenericSchema<unknown, Connect> = v.object({
  clients: v.array(ConnectClientSchema),
  key_placeholder: v.string(),
  kind: v.string(),
  name: NameSchema,
  server_name: v.string(),
  url: v.string(),
})

/**
 * Get how to connect MCP clients to a server or a toolset: files, snippets, commands, links.
 * Needs: `signed_in`.
 */
export const getConnect: Operation<{ path: {
  name: Name
}; query: {
  /**
   * The address that clients reach this Toolyard at, such as `https://toolyard.example`; `public_url` when absent,
   * else the address of this request.
   */
  base?: string
}; body: undefined }, Connect> = /* @__PURE__ */ operation(
  'get_connect', 'GET', '/api/v1/connect/{name}', 'json', ConnectSchema,
)
