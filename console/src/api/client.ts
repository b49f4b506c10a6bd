/**
 * The one wrapper around `fetch`. An answer that is not what the API document says becomes an {@link ApiProblem}
 * with the code `unexpected_answer`, as every other problem does, and never a crash in a page.
 */
import * as v from 'valibot'
import { t } from '@/lib/t'
import { type FieldError, ProblemSchema } from './generated/shared'
import type { Operation, OperationInput } from './operation'

/** Why a request did not do what it should: the server's problem, or ours on the way to it. */
export class ApiProblem extends Error {
  override name = 'ApiProblem'
  /** The server's stable code; ours are `unreachable`, `unexpected_answer`. */
  readonly code: string
  readonly title: string
  readonly detail: string
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number
  readonly requestId: string | undefined
  readonly errors: readonly FieldError[]

  constructor(problem: {
    code: string
    title: string
    detail: string
    status: number
    requestId?: string | undefined
    errors?: readonly FieldError[] | undefined
    cause?: unknown
  }) {
    super(`${problem.title}: ${problem.detail}`, { cause: problem.cause })
    this.code = problem.code
    this.title = problem.title
    this.detail = problem.detail
    this.status = problem.status
    this.requestId = problem.requestId
    this.errors = problem.errors ?? []
  }
}

/** Whether an error is a problem of this status. */
export function isProblem(error: unknown, status?: number): error is ApiProblem {
  return error instanceof ApiProblem && (status === undefined || error.status === status)
}

/** What to give to {@link call}: only what the operation takes. */
export type CallInput<Input> = Input extends OperationInput
  ? (Input['path'] extends undefined ? { path?: undefined } : { path: Input['path'] }) &
      (Input['query'] extends undefined ? { query?: undefined } : { query?: Input['query'] }) &
      (undefined extends Input['body'] ? { body?: Input['body'] } : { body: Input['body'] })
  : never

/** How to make the call, apart from what it says. */
export interface CallOptions {
  signal?: AbortSignal | undefined
  /** Refuse when the thing is no longer the one that was read: its `etag`. */
  ifMatch?: string | undefined
  /** Makes a creation that is sent twice happen once. */
  idempotencyKey?: string | undefined
  /** For a read in the middle of something that a person does: it waits for them to sign in again, as a change does. */
  awaited?: boolean | undefined
}

let onUsed: (operation: string) => void = () => undefined

/** Sets who hears which operations people used: those that change something, by their id alone. */
export function setUseReporter(reporter: (operation: string) => void): void {
  onUsed = reporter
}

let accountOf: () => string | undefined = () => undefined

/** Sets who knows which account this page is of: requests say so, and the server refuses them from another one. */
export function setAccount(account: () => string | undefined): void {
  accountOf = account
}

/** The account that this page is of; `undefined` while nobody is signed in. */
export function currentAccount(): string | undefined {
  return accountOf()
}

/** The headers of a request in the session of this page. */
export function sessionHeaders(headers: Record<string, string>): Headers {
  const account = accountOf()
  return new Headers({ ...headers, ...(account !== undefined && { 'x-toolyard-account': account }) })
}

/** Why the session is not this page's any more: it ended, or somebody else signed in. */
export type SessionLost = 'unauthenticated' | 'account_changed'

let onSignedOut: (changes: boolean, why: SessionLost) => Promise<boolean> = () => Promise.resolve(false)

/**
 * Sets who is told that this page's person is not signed in any more; whether they are again, so that a change can be
 * made after all.
 */
export function setOnSignedOut(signInAgain: typeof onSignedOut): void {
  onSignedOut = signInAgain
}

/** Calls an operation of the API and gives its validated answer. Throws {@link ApiProblem}; an abort throws as `fetch` does. */
export async function call<Input, Answer>(
  operation: Operation<Input, Answer>,
  input: CallInput<Input>,
  options: CallOptions = {},
): Promise<Answer> {
  const { path, query, body } = input as { path?: unknown; query?: unknown; body?: unknown } // as: the generic type is only known to the caller
  const headers = sessionHeaders({ accept: 'application/json, application/problem+json' })
  if (body !== undefined) headers.set('content-type', 'application/json')
  if (options.ifMatch !== undefined) headers.set('if-match', options.ifMatch)
  if (options.idempotencyKey !== undefined) headers.set('idempotency-key', options.idempotencyKey)
  const ask = () =>
    send(`${fillPath(operation.path, path)}${queryString(query)}`, {
      method: operation.method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: options.signal ?? null,
      priority: operation.answer === 'stream' ? 'low' : 'auto',
    })
  let response = await ask()
  if (!response.ok) {
    const problem = await problemOf(response)
    const { code } = problem
    // A wrong password is another problem.
    if (code !== 'unauthenticated' && code !== 'account_changed') throw problem
    // Signing out is done then; a change of the password may be what ended the session, and is not made again.
    if (code === 'unauthenticated' && ['delete_session', 'change_password'].includes(operation.id))
      throw problem
    const changes = options.awaited || operation.method !== 'GET'
    const signedIn = onSignedOut(changes, code)
    if (!changes || !(await signedIn)) throw problem
    response = await ask()
    if (!response.ok) throw await problemOf(response)
  }
  if (operation.method !== 'GET') onUsed(operation.id)
  // as: the operation says which of the three it answers, and its `Answer` was generated from that.
  if (operation.answer === 'stream') return response as Answer
  if (operation.answer === 'nothing' || operation.schema === undefined) return undefined as Answer
  const parsed = v.safeParse(operation.schema, await json(response))
  if (parsed.success) return parsed.output
  throw unexpected(
    response,
    `${operation.id}: ${v.getDotPath(parsed.issues[0]) ?? ''} ${parsed.issues[0].message}`,
  )
}

/** A same-origin request; no answer at all becomes the problem `unreachable`. */
export async function send(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { credentials: 'same-origin', redirect: 'error', ...init })
  } catch (cause) {
    if (init.signal?.aborted) throw cause
    throw new ApiProblem({
      code: 'unreachable',
      title: t('Toolyard does not answer'),
      detail: navigator.onLine
        ? t('Toolyard may be restarting, or the network between may be down')
        : t('this device is offline'),
      status: 0,
      cause,
    })
  }
}

/** The problem that an answer tells of. */
export async function problemOf(response: Response): Promise<ApiProblem> {
  const parsed = v.safeParse(ProblemSchema, await json(response).catch(() => undefined))
  if (!parsed.success) {
    return new ApiProblem({
      code: 'unexpected_answer',
      title: t('Unexpected answer'),
      detail: t('Toolyard answered {status} without saying why', { status: response.status }),
      status: response.status,
      requestId: response.headers.get('x-request-id') ?? undefined,
    })
  }
  const problem = parsed.output
  return new ApiProblem({
    code: problem.code,
    title: problem.title,
    detail: problem.detail,
    status: response.status,
    requestId: problem.request_id ?? response.headers.get('x-request-id') ?? undefined,
    errors: problem.errors,
  })
}

async function json(response: Response): Promise<unknown> {
  try {
    return await response.json()
  } catch {
    throw unexpected(response, 'no JSON')
  }
}

function unexpected(response: Response, cause: string): ApiProblem {
  return new ApiProblem({
    code: 'unexpected_answer',
    title: t('Unexpected answer'),
    detail: t(
      'this console and Toolyard do not agree about an answer; reload the page to get the console that fits',
    ),
    status: response.status,
    requestId: response.headers.get('x-request-id') ?? undefined,
    cause,
  })
}

function fillPath(path: string, values: unknown): string {
  // as: `CallInput` made sure that this is the operation's own record of names and values.
  const given = (values ?? {}) as Record<string, string | number>
  return path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(given[name] ?? '')))
}

function queryString(values: unknown): string {
  if (values === undefined || values === null) return ''
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== '') query.set(name, String(value))
  }
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}
