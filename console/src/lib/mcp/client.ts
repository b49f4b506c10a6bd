/**
 * A client of the Model Context Protocol for the browser, against the gateway this console came from. It speaks the
 * stateless era only (2026-07-28): every request describes itself, and the gateway translates for older servers.
 * Answers are hostile: their size is bounded, and nothing of them is interpreted here.
 */
import { t } from '@/lib/t'
import { EventReader, TooLarge } from './sse'

const VERSION = '2026-07-28'
/** The largest answer that is read, in characters. */
const LARGEST_ANSWER = 16 * 1024 * 1024
/** The most pages of a list, and the most items kept of it. */
const MOST_PAGES = 50
const MOST_ITEMS = 5_000

/** A JSON object as it came. */
export type JsonObject = { [key: string]: unknown }

/** How far a call is. */
export interface Progress {
  progress: number
  total: number | undefined
  message: string | undefined
}

/** How to make one request. */
export interface RequestOptions {
  /** Aborting it cancels the call at the server. */
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
}

/** What a request was answered with. */
export interface Answer {
  result: JsonObject
  /** Size of the whole answer, in bytes of UTF-8. */
  bytes: number
}

/** Why a request has no result. */
export class McpError extends Error {
  /** Who says so, in a few words. */
  readonly title: string
  /** The JSON-RPC code, or 0 when the answer was none of JSON-RPC. */
  readonly code: number
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number
  readonly data: unknown
  readonly requestId: string | undefined

  constructor(
    message: string,
    about: { code?: number; status?: number; data?: unknown; requestId?: string | undefined } = {},
  ) {
    super(message)
    this.code = about.code ?? 0
    this.status = about.status ?? 0
    this.data = about.data
    this.requestId = about.requestId
    const data = isObject(about.data) ? about.data : {}
    // What is shown as the error's code: the gateway's own where it has one.
    const own = typeof data['code'] === 'string' ? data['code'] : undefined
    this.name = own ?? (this.code !== 0 ? `MCP ${this.code}` : `HTTP ${this.status}`)
    // The gateway's errors name the request, a server's are passed on as they are.
    const isGateways =
      this.code === 0 || (this.requestId !== undefined && data['request_id'] === this.requestId)
    this.title =
      this.status === 0
        ? t('No answer')
        : isGateways
          ? gatewayTitle(own)
          : t('The server answered with an error')
  }
}

/** What an error of the gateway's own is about, by its problem code. */
function gatewayTitle(code: string | undefined): string {
  switch (code) {
    case 'server_not_ready':
      return t('The server is not ready')
    case 'upstream_failed':
      return t('No usable answer came from the server')
    case 'upstream_timeout':
      return t('The server did not answer in time')
    case 'answer_dropped':
      return t('The answer of the server was dropped')
    default:
      return t('The gateway could not pass it on')
  }
}

/** Talks to one server or toolset. */
export class McpClient {
  readonly url: string
  readonly #key: (refused: string | undefined) => Promise<string>
  #next = 1

  /**
   * @param url such as `/mcp/default/servers/time`
   * @param key gives the API key; asked for another one when the gateway does not take the first
   */
  constructor(url: string, key: (refused: string | undefined) => Promise<string>) {
    this.url = url
    this.#key = key
  }

  /** What the server says of itself. */
  discover(options?: RequestOptions): Promise<Answer> {
    return this.request('server/discover', {}, undefined, options)
  }

  /** Every tool, page by page. */
  listTools(options?: RequestOptions): Promise<JsonObject[]> {
    return this.list('tools/list', 'tools', options)
  }

  /** Every resource. */
  listResources(options?: RequestOptions): Promise<JsonObject[]> {
    return this.list('resources/list', 'resources', options)
  }

  /** Every template of resources. */
  listResourceTemplates(options?: RequestOptions): Promise<JsonObject[]> {
    return this.list('resources/templates/list', 'resourceTemplates', options)
  }

  /** Every prompt. */
  listPrompts(options?: RequestOptions): Promise<JsonObject[]> {
    return this.list('prompts/list', 'prompts', options)
  }

  /** Calls a tool. A tool that failed is an answer with `isError`, not an error. */
  callTool(name: string, args: JsonObject, options?: RequestOptions): Promise<Answer> {
    return this.request('tools/call', { name, arguments: args }, name, options)
  }

  /** Reads a resource. */
  readResource(uri: string, options?: RequestOptions): Promise<Answer> {
    return this.request('resources/read', { uri }, uri, options)
  }

  /** Fills in a prompt. */
  getPrompt(name: string, args: Record<string, string>, options?: RequestOptions): Promise<Answer> {
    return this.request('prompts/get', { name, arguments: args }, name, options)
  }

  /** All pages of a list. A server without the capability has an empty list. */
  async list(method: string, member: string, options?: RequestOptions): Promise<JsonObject[]> {
    const items: JsonObject[] = []
    let cursor: unknown
    for (let page = 0; page < MOST_PAGES && items.length < MOST_ITEMS; page += 1) {
      const params = typeof cursor === 'string' ? { cursor } : {}
      let result: JsonObject
      try {
        ;({ result } = await this.request(method, params, undefined, options))
      } catch (error) {
        if (error instanceof McpError && error.code === METHOD_NOT_FOUND && page === 0) return []
        throw error
      }
      const found = result[member]
      if (Array.isArray(found)) items.push(...found.filter(isObject))
      cursor = result['nextCursor']
      if (typeof cursor !== 'string' || cursor === '') break
    }
    return items.slice(0, MOST_ITEMS)
  }

  /** Makes one request. Throws {@link McpError}; an abort throws as `fetch` does. */
  async request(
    method: string,
    params: JsonObject,
    name: string | undefined,
    options: RequestOptions = {},
  ): Promise<Answer> {
    const id = this.#next
    this.#next += 1
    const body = JSON.stringify({
      jsonrpc: '2.0',
      id,
      method,
      params: {
        ...params,
        _meta: {
          'io.modelcontextprotocol/protocolVersion': VERSION,
          'io.modelcontextprotocol/clientInfo': { name: 'toolyard-console', version: '1' },
          'io.modelcontextprotocol/clientCapabilities': {},
          ...(options.onProgress === undefined ? {} : { progressToken: id }),
        },
      },
    })
    const key = await this.#key(undefined)
    let response = await this.#post(body, key, method, name, options.signal)
    if (response.status === 401) {
      response = await this.#post(body, await this.#key(key), method, name, options.signal)
    }
    return await read(response, id, options.onProgress)
  }

  async #post(
    body: string,
    key: string,
    method: string,
    name: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const headers = new Headers({
      accept: 'application/json, text/event-stream',
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      'mcp-protocol-version': VERSION,
      'mcp-method': method,
    })
    if (name !== undefined) headers.set('mcp-name', headerValue(name))
    try {
      return await fetch(this.url, {
        method: 'POST',
        headers,
        body,
        credentials: 'omit',
        redirect: 'error',
        signal: signal ?? null,
      })
    } catch (error) {
      if (signal?.aborted) throw error
      throw new McpError(t('the gateway does not answer; check the connection and try again'))
    }
  }
}

const METHOD_NOT_FOUND = -32601

/** A name as a header: plain ASCII as it is, anything else in Base64 between markers (MCP 2026-07-28, transports). */
export function headerValue(name: string): string {
  const plain = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(name) && !name.startsWith('=?base64?')
  if (plain) return name
  const bytes = new TextEncoder().encode(name)
  return `=?base64?${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))}?=`
}

async function read(
  response: Response,
  id: number,
  onProgress: ((progress: Progress) => void) | undefined,
): Promise<Answer> {
  const about = { status: response.status, requestId: response.headers.get('x-request-id') ?? undefined }
  const kind = response.headers.get('content-type') ?? ''
  const reader = response.body?.getReader()
  if (reader === undefined) throw new McpError(t('the answer is empty'), about)
  const decoder = new TextDecoder()
  const events = new EventReader(LARGEST_ANSWER)
  const streamed = kind.startsWith('text/event-stream')
  let [text, bytes] = ['', 0]
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      bytes += value.byteLength
      const chunk = decoder.decode(value, { stream: true })
      if (!streamed) {
        text += chunk
        if (text.length > LARGEST_ANSWER) throw new TooLarge(LARGEST_ANSWER)
        continue
      }
      for (const data of events.push(chunk)) {
        const answer = settle(data, id, about, onProgress)
        if (answer !== undefined) return { result: answer, bytes }
      }
    }
  } catch (error) {
    if (error instanceof TooLarge) {
      throw new McpError(t('the answer is larger than this page can show (16 MiB)'), about)
    }
    throw error
  } finally {
    void reader.cancel().catch(() => undefined)
  }
  const answer = streamed ? undefined : settle(text, id, about, onProgress)
  if (answer === undefined) throw new McpError(t('the answer ended before there was a result'), about)
  return { result: answer, bytes }
}

/** The result, when this message is the answer. Progress is told; everything else is passed over. */
function settle(
  text: string,
  id: number,
  about: { status: number; requestId: string | undefined },
  onProgress: ((progress: Progress) => void) | undefined,
): JsonObject | undefined {
  const message = parse(text)
  if (message === undefined) throw new McpError(t('the answer is not JSON'), about)
  if (message['method'] === 'notifications/progress') {
    const progress = progressOf(message['params'], id)
    if (progress !== undefined) onProgress?.(progress)
    return undefined
  }
  if (message['method'] !== undefined) return undefined
  const error = message['error']
  if (isObject(error)) {
    const code = typeof error['code'] === 'number' ? error['code'] : 0
    const said =
      typeof error['message'] === 'string' ? error['message'] : t('the call failed without a message')
    throw new McpError(said, { ...about, code, data: error['data'] })
  }
  // Not JSON-RPC: a problem of the gateway (RFC 9457).
  if (typeof message['detail'] === 'string')
    throw new McpError(message['detail'], { ...about, data: message })
  const result = message['result']
  return isObject(result) ? result : undefined
}

function progressOf(params: unknown, id: number): Progress | undefined {
  if (!isObject(params) || params['progressToken'] !== id || typeof params['progress'] !== 'number')
    return undefined
  const { total, message } = params
  return {
    progress: params['progress'],
    total: typeof total === 'number' ? total : undefined,
    message: typeof message === 'string' ? message : undefined,
  }
}

function parse(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
