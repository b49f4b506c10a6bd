/**
 * MCP from the browser as the person who is signed in: a key of the session, asked for when it is needed and again
 * shortly before it ends. It is kept in memory only, and ends with the session; whoever signs in next gets another one.
 */
import { queryOptions } from '@tanstack/react-query'
import { McpClient, McpError } from '@/lib/mcp/client'
import { promptsOf, resourcesOf, toolsOf } from '@/lib/mcp/things'
import { call, currentAccount } from './client'
import { createMcpKey } from './generated/identity'
import type { SessionMcpKey } from './generated/types'

/** A key is not used for its last minute: a call may take a while to begin. */
const SPARE_MS = 60_000

let current: Promise<SessionMcpKey> | undefined
let asking: Promise<SessionMcpKey> | undefined
/** Whose these are: nobody calls with the key of who was signed in before. */
let account: string | undefined

async function sessionKey(refused: string | undefined): Promise<string> {
  if (account !== currentAccount()) {
    account = currentAccount()
    current = undefined
    asking = undefined
  }
  const known = await current?.catch(() => undefined)
  const usable =
    known !== undefined && known.key !== refused && Date.parse(known.expires_at) - SPARE_MS > Date.now()
  if (!usable) {
    // Requests that begin together wait for one key.
    asking ??= call(createMcpKey, {})
    const asked = asking
    const settled = () => {
      if (asking === asked) asking = undefined
    }
    asked.then(settled, settled)
    current = asked
    asked.catch(() => {
      if (current === asked) current = undefined
    })
    return (await asked).key
  }
  return known.key
}

/** Talks to a server or toolset at its `mcp_path`. */
export function mcpClient(path: string): McpClient {
  return new McpClient(path, sessionKey)
}

const OFFERED = {
  staleTime: 60_000,
  retry: (failures: number, error: Error) => failures < 2 && error instanceof McpError && error.status >= 502,
}

/** The tools at an `mcp_path`. `generation` changes when they may have changed (`features/mcp/public/target`). */
export function mcpToolsQuery(path: string, generation: string) {
  return queryOptions({
    ...OFFERED,
    queryKey: ['mcp', path, 'tools', generation],
    queryFn: async ({ signal }) => toolsOf(await mcpClient(path).listTools({ signal })),
  })
}

/** The resources at an `mcp_path`, and the templates of resources after them. */
export function mcpResourcesQuery(path: string, generation: string) {
  return queryOptions({
    ...OFFERED,
    queryKey: ['mcp', path, 'resources', generation],
    queryFn: async ({ signal }) => {
      const client = mcpClient(path)
      const lists = await Promise.all([
        client.listResources({ signal }),
        client.listResourceTemplates({ signal }),
      ])
      return resourcesOf(lists.flat())
    },
  })
}

/** The prompts at an `mcp_path`. */
export function mcpPromptsQuery(path: string, generation: string) {
  return queryOptions({
    ...OFFERED,
    queryKey: ['mcp', path, 'prompts', generation],
    queryFn: async ({ signal }) => promptsOf(await mcpClient(path).listPrompts({ signal })),
  })
}
