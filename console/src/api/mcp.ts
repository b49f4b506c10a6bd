/**
 * MCP from the browser as the person who is signed in: a key of the session, asked for when it is needed and again
 * shortly before it ends. It is kept in memory only, and ends with the session: whoever signs in next is refused with it
 * and gets another one.
 */
import { McpClient } from '@/lib/mcp/client'
import { call } from './client'
import { createMcpKey } from './generated/identity'
import type { SessionMcpKey } from './generated/types'

/** A key is not used for its last minute: a call may take a while to begin. */
const SPARE_MS = 60_000

let current: Promise<SessionMcpKey> | undefined

async function sessionKey(refused: string | undefined): Promise<string> {
  const known = await current?.catch(() => undefined)
  const usable =
    known !== undefined && known.key !== refused && Date.parse(known.expires_at) - SPARE_MS > Date.now()
  if (!usable) {
    const asked = call(createMcpKey, {})
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
