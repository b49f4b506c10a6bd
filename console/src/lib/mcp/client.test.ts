import { afterEach, describe, expect, test, vi } from 'vitest'
import { headerValue, McpClient, McpError, type Progress } from './client'

afterEach(() => vi.unstubAllGlobals())

/** A gateway that answers with these, one after the other, and remembers what it was asked. */
function gateway(...answers: Response[]) {
  const asked: Array<{ headers: Headers; body: Record<string, unknown> }> = []
  vi.stubGlobal('fetch', (_url: string, init: { headers: Headers; body: string }) => {
    asked.push({ headers: init.headers, body: JSON.parse(init.body) })
    const answer = answers.shift()
    return answer === undefined ? Promise.reject(new TypeError('down')) : Promise.resolve(answer)
  })
  return asked
}

function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } })
}

function stream(...messages: unknown[]): Response {
  const text = messages.map((message) => `data: ${JSON.stringify(message)}\n\n`).join('')
  return new Response(text, { headers: { 'content-type': 'text/event-stream' } })
}

const client = () =>
  new McpClient('/mcp/default/servers/time', (refused) => Promise.resolve(refused ? 'new' : 'old'))

describe('the MCP client', () => {
  test('describes each request in its headers and its `_meta`', async () => {
    const asked = gateway(json({ jsonrpc: '2.0', id: 1, result: { content: [] } }))
    await client().callTool('zeit‽', { a: 1 })
    expect(asked[0]?.headers.get('mcp-method')).toBe('tools/call')
    expect(asked[0]?.headers.get('mcp-name')).toBe(headerValue('zeit‽'))
    expect(asked[0]?.headers.get('mcp-protocol-version')).toBe('2026-07-28')
    expect(asked[0]?.body['params']).toMatchObject({
      name: 'zeit‽',
      arguments: { a: 1 },
      _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' },
    })
  })

  test('tells progress of its own call and gives the result of a stream', async () => {
    const note = (token: number, progress: number) => ({
      jsonrpc: '2.0',
      method: 'notifications/progress',
      params: { progressToken: token, progress, total: 4, message: 'half' },
    })
    gateway(stream(note(99, 1), note(1, 2), { jsonrpc: '2.0', id: 1, result: { isError: false } }))
    const seen: Progress[] = []
    const answer = await client().callTool('slow', {}, { onProgress: (progress) => seen.push(progress) })
    expect(seen).toEqual([{ progress: 2, total: 4, message: 'half' }])
    expect(answer.result).toEqual({ isError: false })
  })

  test('asks for another key once when the first is refused', async () => {
    const asked = gateway(
      json({ detail: 'the key has ended' }, 401),
      json({ jsonrpc: '2.0', id: 1, result: {} }),
    )
    await client().discover()
    expect(asked.map((one) => one.headers.get('authorization'))).toEqual(['Bearer old', 'Bearer new'])
  })

  test('reads a list to its end, and an absent capability as an empty list', async () => {
    gateway(
      json({ jsonrpc: '2.0', id: 1, result: { tools: [{ name: 'a' }, 'junk'], nextCursor: 'x' } }),
      json({ jsonrpc: '2.0', id: 2, result: { tools: [{ name: 'b' }] } }),
      json({ jsonrpc: '2.0', id: 3, error: { code: -32601, message: 'no such method' } }, 404),
    )
    const mcp = client()
    expect(await mcp.listTools()).toEqual([{ name: 'a' }, { name: 'b' }])
    expect(await mcp.listPrompts()).toEqual([])
  })

  test('says what went wrong, in the words of whoever knows', async () => {
    gateway(
      json({ jsonrpc: '2.0', id: 1, error: { code: -32602, message: 'no such tool', data: { tool: 'x' } } }),
      json({ type: 'about:blank', detail: 'the server is stopped' }, 503),
      new Response('<html>', { status: 502, headers: { 'content-type': 'text/html' } }),
      stream({ jsonrpc: '2.0', method: 'notifications/message' }),
    )
    const mcp = client()
    const errors: unknown[] = []
    for (let at = 0; at < 5; at += 1)
      errors.push(await mcp.callTool('x', {}).catch((error: unknown) => error))
    expect(errors.map((error) => (error instanceof McpError ? [error.code, error.status] : error))).toEqual([
      [-32602, 200],
      [0, 503],
      [0, 502],
      [0, 200],
      [0, 0],
    ])
    expect(String(errors[1])).toContain('the server is stopped')
  })

  test('tells an error of the gateway, by its problem code, from one of the server', async () => {
    const error = (data: unknown) =>
      new Response(JSON.stringify({ jsonrpc: '2.0', id: 1, error: { code: -32603, message: 'x', data } }), {
        headers: { 'content-type': 'application/json', 'x-request-id': 'r1' },
      })
    const titleOf = async (data: unknown) => {
      gateway(error(data))
      return await client()
        .callTool('x', {})
        .catch((thrown: unknown) => (thrown instanceof McpError ? thrown.title : thrown))
    }
    const ours = (code: string) => titleOf({ code, request_id: 'r1' })
    expect(await ours('upstream_failed')).toBe('No usable answer came from the server')
    expect(await ours('upstream_timeout')).toBe('The server did not answer in time')
    expect(await ours('server_not_ready')).toBe('The server is not ready')
    expect(await ours('rate_limited')).toBe('The gateway could not pass it on')
    expect(await titleOf({ request_id: 'r1' })).toBe('The gateway could not pass it on')
    expect(await titleOf({ code: 'upstream_failed', request_id: 'of the server' })).toBe(
      'The server answered with an error',
    )
    expect(await titleOf(undefined)).toBe('The server answered with an error')
  })
})
