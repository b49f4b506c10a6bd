// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { setOnSignedOut } from '@/api/client'
import type { Credential } from '@/api/generated/types'
import { loadWindows } from '@/ui/dialog'
import { CredentialDialog } from './credential-dialog'

vi.mock('@tanstack/react-router', () => ({ useBlocker: () => ({ status: 'idle' }) }))

let root: Root
let sent: string[]
let closed: number
let signedIn: boolean
/** What was put, and whether the answers to it, and to reading it, arrive. */
let kept: Credential | undefined
let answers: { put: boolean; read: boolean }

const credential = (version: number): Credential => ({
  id: '01900000-0000-7000-8000-000000000001',
  name: 'token',
  description: '',
  version,
  used_by: [],
  outdated_in: [],
  unknown_in: [],
  created_at: '2026-11-29T16:00:00Z',
  updated_at: '2026-11-29T16:00:00Z',
})

const refusal = (status: number, code: string) =>
  Response.json({ type: '', title: 'x', detail: 'x', status, code }, { status })

/** As Toolyard answers; an answer that does not arrive is to something that was done. */
function answer(path: string, { method }: RequestInit): Promise<Response> {
  sent.push(`${method} ${path}`)
  if (!signedIn) return Promise.resolve(refusal(401, 'unauthenticated'))
  if (method === 'PUT') kept = credential((kept?.version ?? 0) + 1)
  if (!answers[method === 'PUT' ? 'put' : 'read'])
    return Promise.reject(new TypeError('the connection was cut'))
  return Promise.resolve(kept === undefined ? refusal(404, 'not_found') : Response.json(kept))
}

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  await loadWindows()
})

beforeEach(() => {
  sent = []
  closed = 0
  signedIn = true
  kept = undefined
  answers = { put: true, read: true }
  setOnSignedOut(() => Promise.resolve(false))
  vi.stubGlobal('fetch', answer)
  root = createRoot(document.body.appendChild(document.createElement('div')))
})

afterEach(async () => {
  await act(async () => root.unmount())
  document.body.replaceChildren()
  vi.unstubAllGlobals()
})

async function show(replaced?: Credential): Promise<void> {
  const onClose = () => {
    closed += 1
  }
  await act(async () =>
    root.render(
      <QueryClientProvider client={new QueryClient()}>
        {replaced === undefined ? (
          <CredentialDialog onClose={onClose} />
        ) : (
          <CredentialDialog credential={replaced} onClose={onClose} />
        )}
      </QueryClientProvider>,
    ),
  )
  if (replaced === undefined) await type('name', 'token')
  await type('secret', 'a secret')
}

const dialog = () => document.querySelector('[role="dialog"]')

async function type(name: string, value: string) {
  await vi.waitFor(() => expect(dialog()?.querySelector(`input[name="${name}"]`)).not.toBeNull())
  const input = dialog()?.querySelector(`input[name="${name}"]`)
  const write = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value')?.set
  await act(async () => {
    write?.call(input, value)
    input?.dispatchEvent(new Event('input', { bubbles: true }))
  })
}

const save = async () => {
  await act(async () => {
    dialog()
      ?.querySelector('form')
      ?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true }))
  })
  await vi.waitFor(async () => {
    await act(async () => undefined)
    expect(document.querySelector('[aria-busy]')).toBeNull()
  })
}

const GET = 'GET /api/v1/credentials/token'
const PUT = 'PUT /api/v1/credentials/token'

test('a credential is created after its person signed in again over the form', async () => {
  signedIn = false
  setOnSignedOut((changes) => {
    signedIn = changes
    return Promise.resolve(changes)
  })
  await show()
  await save()
  expect(sent).toEqual([GET, GET, PUT])
  expect(closed).toBe(1)
})

test('a credential whose answer was lost is not said to have failed, and is sent again', async () => {
  answers.put = false
  await show()
  await save()
  expect(dialog()?.textContent).toContain('It is not known whether token is kept')
  expect(dialog()?.textContent).not.toContain('unreachable')
  // What it looks at before does not say more than the answer that was lost.
  answers.read = false
  await save()
  expect(dialog()?.textContent).toContain('It is not known whether token is kept')
  answers.read = true
  await save()
  expect(dialog()?.textContent).toContain('It is not known whether token is kept')
  answers.put = true
  await save()
  expect(closed).toBe(1)
  expect(sent).toEqual([GET, PUT, GET, GET, PUT, GET, PUT])
})

test('a credential of the same name that was not made here is not replaced', async () => {
  kept = credential(1)
  await show()
  await save()
  expect(dialog()?.textContent).toContain('There is a credential of this name')
  expect(sent).toEqual([GET])
})

test('a credential that was not even looked for is not in doubt', async () => {
  answers.read = false
  await show()
  await save()
  expect(dialog()?.textContent).toContain('Toolyard does not answer')
  expect(dialog()?.textContent).not.toContain('not known')
  expect(sent).toEqual([GET])
})

test('another secret whose answer was lost is not said to have failed', async () => {
  answers.put = false
  await show(credential(1))
  await save()
  expect(dialog()?.textContent).toContain('It is not known whether token has another secret')
  answers.put = true
  await save()
  expect(closed).toBe(1)
  expect(sent).toEqual([PUT, PUT])
})
