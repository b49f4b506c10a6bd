import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { call, isProblem, type SessionLost, setAccount, setOnSignedOut } from './client'
import { operation } from './operation'

const READ = operation<{ path: undefined; query: undefined; body: undefined }, void>(
  'read_it',
  'GET',
  '/api/v1/it',
  'nothing',
  undefined,
)
const CHANGE = operation<{ path: undefined; query: undefined; body: { memory: number } }, void>(
  'change_it',
  'PATCH',
  '/api/v1/it',
  'nothing',
  undefined,
)

/** Who is signed in, as the server sees it. */
let signedIn: string | undefined
let sent: Request[] = []
let asked: [boolean, SessionLost][] = []
let again: () => Promise<boolean>

beforeEach(() => {
  sent = []
  asked = []
  again = () => Promise.resolve(false)
  setAccount(() => 'operator')
  setOnSignedOut((changes, why) => {
    asked.push([changes, why])
    return again()
  })
  vi.stubGlobal('fetch', (path: string, init: RequestInit) => {
    const request = new Request(new URL(path, 'http://toolyard.test'), { ...init, redirect: 'follow' })
    sent.push(request)
    const code = signedIn === undefined ? 'unauthenticated' : 'account_changed'
    if (request.headers.get('x-toolyard-account') === signedIn) return Promise.resolve(new Response('{}'))
    const status = signedIn === undefined ? 401 : 409
    const problem = { type: '', title: 'x', status, code, detail: 'x' }
    return Promise.resolve(Response.json(problem, { status }))
  })
})

afterEach(() => {
  vi.unstubAllGlobals()
})

test('a change goes through in the session of whoever filled it in', async () => {
  signedIn = 'operator'
  await call(CHANGE, { body: { memory: 1 } })
  expect(sent.map((request) => request.method)).toEqual(['PATCH'])
  expect(asked).toEqual([])
})

test('a change that meets the session of somebody else is not sent as them', async () => {
  signedIn = 'owner'
  const refused = await call(CHANGE, { body: { memory: 1 } }).catch((error: unknown) => error)
  expect(isProblem(refused, 409)).toBe(true)
  expect(asked).toEqual([[true, 'account_changed']])
  expect(sent.map((request) => request.headers.get('x-toolyard-account'))).toEqual(['operator'])
})

test('a change goes on after the same person signed in again', async () => {
  signedIn = 'owner'
  again = () => {
    signedIn = 'operator'
    return Promise.resolve(true)
  }
  await call(CHANGE, { body: { memory: 1 } })
  expect(sent.map((request) => request.method)).toEqual(['PATCH', 'PATCH'])
})

test('a read in the middle of what a person does goes on after they signed in again', async () => {
  signedIn = undefined
  again = () => {
    signedIn = 'operator'
    return Promise.resolve(true)
  }
  await call(READ, {}, { awaited: true })
  expect(asked).toEqual([[true, 'unauthenticated']])
  expect(sent.map((request) => request.method)).toEqual(['GET', 'GET'])
})

test('what merely reads tells who is signed in, and does not wait for an answer', async () => {
  signedIn = undefined
  again = () => new Promise(() => undefined)
  const refused = await call(READ, {}).catch((error: unknown) => error)
  expect(isProblem(refused, 401)).toBe(true)
  signedIn = 'owner'
  await expect(call(READ, {})).rejects.toThrow()
  expect(asked).toEqual([
    [false, 'unauthenticated'],
    [false, 'account_changed'],
  ])
})
