// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { setAccount, setOnSignedOut } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { queryClient } from './query-client'
import { answerSignIn, askToSignIn, useAskedToSignIn, useOtherTabs, useSessionLost } from './signed-out'

const SESSION = {
  account: 'org/user:operator',
  kind: 'user',
  display: 'operator@example.test',
  organization: 'default',
  role: 'operator',
  actions: [],
}

/** The account that the browser's cookie is of. */
let signedIn: string | undefined
let root: Root
let seen = { asked: false, lost: false }
let other: BroadcastChannel

function Page() {
  useOtherTabs()
  seen = { asked: useAskedToSignIn(), lost: useSessionLost() }
  return null
}

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  setAccount(() => queryClient.getQueryData(sessionQuery.queryKey)?.account)
  setOnSignedOut((changes) => askToSignIn(changes))
})

beforeEach(async () => {
  signedIn = SESSION.account
  vi.stubGlobal('fetch', (_path: string, init: RequestInit) => {
    const meant = new Headers(init.headers).get('x-toolyard-account')
    if (signedIn !== undefined && (meant === null || meant === signedIn))
      return Promise.resolve(Response.json({ ...SESSION, account: signedIn }))
    const [status, code] = signedIn === undefined ? [401, 'unauthenticated'] : [409, 'account_changed']
    return Promise.resolve(Response.json({ type: '', title: 'x', detail: 'x', status, code }, { status }))
  })
  await queryClient.fetchQuery({ ...sessionQuery, staleTime: 0 })
  other = new BroadcastChannel('toolyard.signed-in')
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () => root.render(<Page />))
})

afterEach(async () => {
  await act(async () => root.unmount())
  other.close()
  queryClient.clear()
  vi.unstubAllGlobals()
})

const until = (what: { asked: boolean; lost: boolean }) =>
  vi.waitFor(async () => {
    await act(async () => undefined)
    expect(seen).toEqual(what)
  })

test('a tab asks as soon as another one says that somebody signed out', async () => {
  signedIn = undefined
  other.postMessage('signed out')
  await until({ asked: true, lost: true })
})

test('a tab asks when another one signed in as somebody else, and goes on when its own person is back', async () => {
  signedIn = 'org/user:owner'
  other.postMessage('signed in')
  await until({ asked: true, lost: true })
  expect(queryClient.getQueryData(sessionQuery.queryKey)?.account).toBe(SESSION.account)
  signedIn = SESSION.account
  other.postMessage('signed in')
  await until({ asked: false, lost: false })
})

test('a tab looks when it is seen again, whatever it was told', async () => {
  signedIn = 'org/user:owner'
  document.dispatchEvent(new Event('visibilitychange'))
  await until({ asked: true, lost: true })
})

test('a closed question is asked again when the tab is seen again, until its own person is back', async () => {
  signedIn = 'org/user:owner'
  other.postMessage('signed in')
  await until({ asked: true, lost: true })
  act(() => answerSignIn(false))
  await until({ asked: false, lost: true })
  await queryClient.fetchQuery({ ...sessionQuery, staleTime: 0 }).catch(() => undefined)
  await until({ asked: false, lost: true })
  document.dispatchEvent(new Event('visibilitychange'))
  await until({ asked: true, lost: true })
  act(() => answerSignIn(false))
  signedIn = SESSION.account
  other.postMessage('signed in')
  await until({ asked: false, lost: false })
})
