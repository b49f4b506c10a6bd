// @vitest-environment happy-dom
import { notifyManager, QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act, Component, type ReactNode, Suspense } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Toolset } from '@/api/generated/types'
import { forgetGone } from '@/api/gone'
import { readGoneAgain } from '@/api/gone-again'
import { sessionQuery } from '@/api/session'
import { serversQuery } from '@/features/servers/public/queries'
import { loadWindows } from '@/ui/dialog'
import { ToolsetPage, toolsetQuery } from './public/toolset-page'

vi.mock('@tanstack/react-router', () => ({
  createLink:
    () =>
    ({ to, children }: { to: string; children: ReactNode }) => <a href={to}>{children}</a>,
  useBlocker: () => ({ status: 'idle' }),
  useNavigate: () => () => undefined,
}))

const TOOLSET: Toolset = {
  id: '01900000-0000-7000-8000-000000000001',
  name: 'pair',
  description: 'as it was',
  members: [],
  mcp_path: '/mcp/default/toolsets/pair',
  created_at: '2026-11-29T16:00:00Z',
  updated_at: '2026-11-29T16:00:00Z',
  etag: '1',
}

let root: Root
let client: QueryClient
let endGone: () => void
/** What the API says of the toolset; `undefined` when there is none. */
let now: Toolset | undefined

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  notifyManager.setNotifyFunction((notify) => act(notify))
  await loadWindows()
})

afterEach(async () => {
  await act(async () => root.unmount())
  endGone()
  client.clear()
  document.body.replaceChildren()
  vi.unstubAllGlobals()
})

/** What the router shows in place of a page that cannot be shown. */
class Instead extends Component<{ children: ReactNode }, { error?: unknown }> {
  override state: { error?: unknown } = {}
  static getDerivedStateFromError(error: unknown) {
    return { error }
  }
  override render() {
    return this.state.error === undefined ? this.props.children : 'Not found'
  }
}

async function show(): Promise<void> {
  now = TOOLSET
  vi.stubGlobal('fetch', (_: string, init: RequestInit) => {
    const refuse = (status: number, code: string, text: string) =>
      Promise.resolve(Response.json({ type: '', title: text, detail: text, status, code }, { status }))
    if (now === undefined) return refuse(404, 'not_found', 'no such thing')
    if (init.method === 'PUT') return refuse(412, 'precondition_failed', 'it changed since you read it')
    return Promise.resolve(Response.json(now))
  })
  client = new QueryClient({
    queryCache: new QueryCache({ onError: forgetGone }),
    defaultOptions: { queries: { retry: false, staleTime: Number.POSITIVE_INFINITY } },
  })
  endGone = readGoneAgain(client)
  client.setQueryData(sessionQuery.queryKey, {
    account: 'org/user:operator',
    kind: 'user',
    display: 'operator@example.test',
    organization: 'default',
    role: 'operator',
    actions: ['toolset:manage'],
    first_run: false,
  })
  client.setQueryData(toolsetQuery('pair').queryKey, TOOLSET)
  client.setQueryData(serversQuery.queryKey, { pages: [{ items: [] }], pageParams: [undefined] })
  root = createRoot(document.body.appendChild(document.createElement('div')), {
    onCaughtError: () => undefined,
  })
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <Instead>
          <Suspense>
            <ToolsetPage name="pair" />
          </Suspense>
        </Instead>
      </QueryClientProvider>,
    ),
  )
}

const text = () => document.body.textContent ?? ''
const field = () => document.querySelector('textarea')
const button = (name: string) =>
  [...document.querySelectorAll('button')].find((one) => one.textContent === name)

async function type(value: string): Promise<void> {
  const write = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value')?.set
  await act(async () => {
    write?.call(field(), value)
    field()?.dispatchEvent(new Event('input', { bubbles: true }))
  })
}

/** As when the page hears of a change elsewhere. */
const hear = () => act(() => client.invalidateQueries({ queryKey: toolsetQuery('pair').queryKey }))

const eventually = (look: () => void) =>
  vi.waitFor(async () => {
    await act(async () => undefined)
    look()
  })

test('what is typed into a toolset stays when somebody else deletes it, until it is given up', async () => {
  await show()
  await type('typed')
  now = undefined
  await hear()
  await eventually(() => expect(text()).toContain('It was deleted elsewhere'))
  expect(field()?.value).toBe('typed')
  expect(document.querySelector('a[href="/toolsets"]')).not.toBeNull()
  expect(button('Save changes')?.getAttribute('aria-disabled')).toBe('true')
  expect(button('Delete the toolset')).toBeUndefined()
  await act(async () => button('Discard')?.click())
  await eventually(() => expect(text()).toBe('Not found'))
})

test('a toolset into which nothing is typed gives way when somebody else deletes it', async () => {
  await show()
  now = undefined
  await hear()
  await eventually(() => expect(text()).toBe('Not found'))
})

test('a toolset that was changed elsewhere cannot be saved over', async () => {
  await show()
  await type('typed')
  now = { ...TOOLSET, description: 'as somebody else wants it', etag: '2' }
  await hear()
  await eventually(() => expect(text()).toContain('It was changed elsewhere'))
  expect(button('Save changes')?.getAttribute('aria-disabled')).toBe('true')
  await act(async () => button('Show the new state')?.click())
  expect(field()?.value).toBe('as somebody else wants it')
})

test('another toolset of the same name is a change elsewhere', async () => {
  await show()
  await type('typed')
  now = { ...TOOLSET, id: '01900000-0000-7000-8000-000000000002', description: 'made anew' }
  await hear()
  await eventually(() => expect(text()).toContain('It was changed elsewhere'))
  expect(field()?.value).toBe('typed')
})

test('saving what was changed meanwhile says so once, before the page has heard of it', async () => {
  await show()
  await type('typed')
  now = { ...TOOLSET, description: 'as somebody else wants it', etag: '2' }
  await act(async () => button('Save changes')?.click())
  await eventually(() => expect(text()).toContain('It was changed elsewhere'))
  expect(text()).not.toContain('changed since you read it')
  expect(field()?.value).toBe('typed')
})
