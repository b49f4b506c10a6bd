// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { sessionQuery } from '@/api/session'
import { setPasswordUnsure } from '@/lib/password'
import { loadWindows } from '@/ui/dialog'
import { SignInAgain } from './sign-in-again'

vi.mock('@tanstack/react-router', () => ({ useBlocker: () => ({ status: 'idle' }) }))

const SESSION = {
  account: 'org/user:operator',
  kind: 'user',
  display: 'operator@example.test',
  organization: 'default',
  role: 'operator',
  actions: [],
  first_run: false,
} as const

/** Whom the browser's cookie is of. */
let signedIn: string | undefined
let root: Root
let other: BroadcastChannel

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  await loadWindows()
})

async function show(): Promise<void> {
  const client = new QueryClient()
  client.setQueryData(sessionQuery.queryKey, { ...SESSION, actions: [] })
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <SignInAgain onAnswer={() => undefined} onLeave={() => undefined} />
      </QueryClientProvider>,
    ),
  )
}

beforeEach(() => {
  signedIn = undefined
  vi.stubGlobal('fetch', () =>
    Promise.resolve(
      signedIn === undefined
        ? Response.json(
            { type: '', title: 'x', detail: 'x', status: 401, code: 'unauthenticated' },
            { status: 401 },
          )
        : Response.json({ ...SESSION, account: `org/user:${signedIn}`, display: `${signedIn}@example.test` }),
    ),
  )
  other = new BroadcastChannel('toolyard.signed-in')
})

afterEach(async () => {
  await act(async () => root.unmount())
  other.close()
  document.body.replaceChildren()
  setPasswordUnsure(false)
  vi.unstubAllGlobals()
})

const says = (text: string) =>
  vi.waitFor(async () => {
    await act(async () => undefined)
    expect(document.body.textContent).toContain(text)
  })

test('when the other person signed out again, the password of the own person is asked for', async () => {
  signedIn = 'owner'
  await show()
  await says('Go on as owner@example.test')
  signedIn = undefined
  other.postMessage('signed out')
  await says('Your session ended')
  await says('Password of operator@example.test')
  expect(document.body.textContent).not.toContain('Go on as')
})

test('that the password may have been changed is said where it is asked for', async () => {
  setPasswordUnsure(true)
  await show()
  await says('try the new one, then the old one')
})
