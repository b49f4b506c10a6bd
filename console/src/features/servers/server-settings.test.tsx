// @vitest-environment happy-dom
import { notifyManager, QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act, type ReactNode, Suspense } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { CurrentSettings, Server } from '@/api/generated/types'
import { forgetGone } from '@/api/gone'
import { sessionQuery } from '@/api/session'
import { toolboxesQuery } from '@/features/toolboxes/public/queries'
import { loadWindows } from '@/ui/dialog'
import { ActingProvider } from './acting'
import { serverQuery, settingsQuery } from './public/queries'
import { ServerSettings } from './public/server-settings'

vi.mock('@tanstack/react-router', () => ({
  createLink:
    () =>
    ({ to, children }: { to: string; children: ReactNode }) => <a href={to}>{children}</a>,
  useBlocker: () => ({ status: 'idle' }),
  useNavigate: () => () => undefined,
}))

// as: what the page looks at.
const SERVER = {
  id: '01900000-0000-7000-8000-000000000001',
  name: 'time',
  kind: 'npm',
  enabled: true,
  phase: 'ready',
  reason: 'ready',
  instances: [],
  revision: 1,
  etag: '1',
  toolbox: null,
  rollout: {
    id: '01900000-0000-7000-8000-000000000002',
    state: 'failed',
    reason: 'crashed',
    from_revision: 1,
    to_revision: 2,
    started_at: '2026-11-29T16:00:00Z',
    log: [],
  },
} as unknown as Server

const SETTINGS: CurrentSettings = {
  arguments: [],
  call_timeout_ms: 60_000,
  credentials: {},
  egress: { policy: 'none' },
  environment: {},
  etag: '1',
  inputs: {},
  instancing: {},
  kind: 'npm',
  limits: { memory_bytes: 256 << 20, processes: 64 },
  observe_seconds: 0,
  paths: [],
  replicas: 1,
  revision: 1,
  rollout_timeout_ms: 300_000,
  start_timeout_ms: 60_000,
  strategy: 'surge',
}

let root: Root
let client: QueryClient

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  notifyManager.setNotifyFunction((notify) => act(notify))
  await loadWindows()
})

afterEach(async () => {
  await act(async () => root.unmount())
  client.clear()
  document.body.replaceChildren()
  vi.unstubAllGlobals()
})

/** The page of a server that the API knows no more. */
async function show(): Promise<void> {
  vi.stubGlobal('fetch', () =>
    Promise.resolve(
      Response.json(
        { type: '', title: 'no such thing', detail: 'it does not exist', status: 404, code: 'not_found' },
        { status: 404 },
      ),
    ),
  )
  client = new QueryClient({
    queryCache: new QueryCache({ onError: forgetGone }),
    defaultOptions: { queries: { retry: false, staleTime: Number.POSITIVE_INFINITY } },
  })
  client.setQueryData(sessionQuery.queryKey, {
    account: 'org/user:operator',
    kind: 'user',
    display: 'operator@example.test',
    organization: 'default',
    role: 'operator',
    actions: ['server:operate', 'server:deploy', 'server:delete', 'toolbox:read'],
    first_run: false,
  })
  client.setQueryData(serverQuery('time').queryKey, SERVER)
  client.setQueryData(settingsQuery('time').queryKey, SETTINGS)
  // as: what a choice of a toolbox looks at.
  const toolboxes = {
    items: [{ name: 'elsewhere', state: 'online', labels: {}, report: { grantable_paths: [] } }],
  }
  client.setQueryData(toolboxesQuery.queryKey, toolboxes as never)
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <ActingProvider>
          <Suspense>
            <ServerSettings name="time" />
          </Suspense>
        </ActingProvider>
      </QueryClientProvider>,
    ),
  )
}

const button = (name: string) =>
  [...document.querySelectorAll('button')].find((one) => one.textContent === name)
const headings = () => [...document.querySelectorAll('h2')].map((one) => one.textContent)
const place = () =>
  [...document.querySelectorAll('select')].find((one) =>
    [...one.options].some((option) => option.value === 'elsewhere'),
  )

async function choosePlace(value: string): Promise<void> {
  const select = place()
  await act(async () => {
    if (select !== undefined) select.value = value
    select?.dispatchEvent(new Event('change', { bubbles: true }))
  })
}

test('a server that was deleted elsewhere while its place was chosen cannot be moved, nor anything else done to it', async () => {
  await show()
  await choosePlace('elsewhere')
  expect(button('Move it')?.getAttribute('aria-disabled')).toBeNull()
  expect(headings()).toContain('Rollout')
  expect(headings()).toContain('Danger zone')
  // Moving it is how the page hears of it.
  await act(async () => button('Move it')?.click())
  await vi.waitFor(async () => {
    await act(async () => undefined)
    expect(button('Move it')?.getAttribute('aria-disabled')).toBe('true')
  })
  const reason = document.getElementById(button('Move it')?.getAttribute('aria-describedby') ?? '')
  expect(reason?.textContent).toBe('It was deleted elsewhere')
  expect(place()?.value).toBe('elsewhere')
  expect(document.body.textContent).not.toContain('no such thing')
  expect(headings()).not.toContain('Rollout')
  expect(headings()).not.toContain('Danger zone')
})
