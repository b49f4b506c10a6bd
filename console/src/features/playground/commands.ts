/** The same request from a shell. */
import { headerValue } from '@/lib/mcp/client'
import type { Request } from './run'

const VERSION = '2026-07-28'

/** A `curl` command that makes the request. The key is a variable of the shell. */
export function curlCommand(url: string, request: Request): string {
  const [method, name, params] = wire(request)
  const body = JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method,
    params: {
      ...params,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': VERSION,
        'io.modelcontextprotocol/clientInfo': { name: 'curl', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  })
  return [
    `curl ${quoted(url)}`,
    `-H "Authorization: Bearer $TOOLYARD_API_KEY"`,
    `-H 'Content-Type: application/json'`,
    `-H 'Accept: application/json, text/event-stream'`,
    `-H 'MCP-Protocol-Version: ${VERSION}'`,
    `-H 'Mcp-Method: ${method}'`,
    `-H ${quoted(`Mcp-Name: ${headerValue(name)}`)}`,
    `-d ${quoted(body)}`,
  ].join(' \\\n  ')
}

/** The command of Toolyard that makes the request; only tools have one. */
export function cliCommand(target: string, request: Request): string | undefined {
  if (request.kind !== 'tool') return undefined
  return `toolyard call ${target} ${quoted(request.name)} ${quoted(JSON.stringify(request.input))}`
}

function wire(request: Request): [method: string, name: string, params: Record<string, unknown>] {
  switch (request.kind) {
    case 'tool':
      return ['tools/call', request.name, { name: request.name, arguments: request.input }]
    case 'resource':
      return ['resources/read', request.uri, { uri: request.uri }]
    case 'prompt':
      return ['prompts/get', request.name, { name: request.name, arguments: request.input }]
  }
}

/** One word of a POSIX shell. Control characters have no plain form there: they are written as JSON or escapes do. */
export function quoted(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
