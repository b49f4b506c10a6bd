// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { setOnSignedOut } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { unsureText } from '@/lib/password'
import { ChangePassword } from './change-password'

vi.mock('@/app/live', () => ({ startLive: vi.fn(), stopLive: vi.fn() }))

const SESSION = {
  account: 'org/user:operator',
  kind: 'user',
  display: 'operator@example.test',
  organization: 'default',
  role: 'operator',
  actions: [],
  first_run: false,
} as const

const OLD = 'the password until now'
const NEW = 'another long password'

let root: Root
let sent: string[]
let done: number
/** What the change is answered, and the password that holds after it. */
let change: () => Promise<Response>
let holds: string

const refusal = (status: number, code: string) =>
  Promise.resolve(Response.json({ type: '', title: 'x', detail: 'x', status, code }, { status }))

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

beforeEach(async () => {
  sent = []
  done = 0
  holds = OLD
  setOnSignedOut(() => Promise.resolve(true))
  vi.stubGlobal('fetch', (path: string, init: RequestInit) => {
    sent.push(`${init.method} ${path}`)
    if (init.method === 'PUT') return change()
    const { password } = JSON.parse(String(init.body))
    return password === holds ? Promise.resolve(Response.json(SESSION)) : refusal(401, 'invalid_credentials')
  })
  const client = new QueryClient()
  client.setQueryData(sessionQuery.queryKey, { ...SESSION, actions: [] })
  const onDone = () => {
    done += 1
    return undefined
  }
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <ChangePassword submitLabel="Save" onDone={onDone} />
      </QueryClientProvider>,
    ),
  )
  const fields = [...document.querySelectorAll<HTMLInputElement>('input[type="password"]')]
  const write = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value')?.set
  for (const [index, value] of [OLD, NEW, NEW].entries()) {
    const field = fields[index]
    await act(async () => {
      if (field !== undefined) write?.call(field, value)
      field?.dispatchEvent(new Event('input', { bubbles: true }))
    })
  }
})

afterEach(async () => {
  await act(async () => root.unmount())
  document.body.replaceChildren()
  vi.unstubAllGlobals()
})

const save = async () => {
  await act(async () => {
    document.querySelector('form')?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true }))
  })
  await vi.waitFor(async () => {
    await act(async () => undefined)
    expect(document.querySelector('[aria-busy]')).toBeNull()
  })
}

const PUT = 'PUT /api/v1/session/password'
const POST = 'POST /api/v1/session'

test('a change whose answer was lost is not sent again, and is done where the new password holds', async () => {
  change = () => {
    holds = NEW
    return Promise.reject(new TypeError('the connection was cut'))
  }
  await save()
  expect(sent).toEqual([PUT, POST])
  expect(done).toBe(1)
  expect(unsureText()).toBe('')
})

test('a change that ended the session before its answer is not sent again after signing in', async () => {
  change = () => {
    holds = NEW
    return refusal(401, 'unauthenticated')
  }
  await save()
  expect(sent).toEqual([PUT, POST])
  expect(done).toBe(1)
})

test('where nobody knows whether the password was changed, both are to be tried', async () => {
  change = () => Promise.reject(new TypeError('the connection was cut'))
  await save()
  expect(sent).toEqual([PUT, POST])
  expect(done).toBe(0)
  expect(document.body.textContent).toContain('try the new one, then the old one')
  expect(unsureText()).toContain('may have been changed')
})

test('a change that was refused says why, and nothing else', async () => {
  change = () => refusal(422, 'invalid')
  await save()
  expect(sent).toEqual([PUT])
  expect(document.body.textContent).not.toContain('the old one')
})
