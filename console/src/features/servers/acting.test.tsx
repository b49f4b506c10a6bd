// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Server } from '@/api/generated/types'
import { sessionQuery } from '@/api/session'
import { loadWindows } from '@/ui/dialog'
import { ToastProvider } from '@/ui/toast'
import { ActingProvider, useAct } from './acting'
import { BulkBar } from './bulk'

vi.mock('@tanstack/react-router', () => ({
  createLink: (component: unknown) => component,
  useBlocker: () => ({ status: 'idle' }),
  useNavigate: () => () => undefined,
}))

// as: what the actions look at.
const SERVERS = ['everything', 'time'].map(
  (name) => ({ id: name, name, enabled: true, phase: 'ready' }) as Server,
)

let root: Root

function Restart() {
  const act = useAct()
  return (
    <button type="button" onClick={() => void act('restart', 'everything')}>
      Restart everything
    </button>
  )
}

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  await loadWindows()
})

afterEach(async () => {
  await act(async () => root.unmount())
  document.body.replaceChildren()
  vi.unstubAllGlobals()
})

async function show() {
  // Every request arrives, and no answer comes back.
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('the connection was cut')))
  const client = new QueryClient()
  client.setQueryData(sessionQuery.queryKey, {
    account: 'org/user:operator',
    kind: 'user',
    display: 'operator@example.test',
    organization: 'default',
    role: 'operator',
    actions: ['server:operate'],
    first_run: false,
  })
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <ToastProvider>
          <ActingProvider>
            <Restart />
            <BulkBar servers={SERVERS} onClear={() => undefined} />
          </ActingProvider>
        </ToastProvider>
      </QueryClientProvider>,
    ),
  )
}

async function press(name: string, within: ParentNode | null = document) {
  const button = [...(within?.querySelectorAll('button') ?? [])].find((one) => one.textContent === name)
  expect(button, name).toBeDefined()
  await act(async () => button?.click())
}

const says = (text: string) =>
  vi.waitFor(async () => {
    await act(async () => undefined)
    expect(document.body.textContent).toContain(text)
  })

test('a restart whose answer was lost is not said to have failed', async () => {
  await show()
  await press('Restart everything')
  await says('It is not known whether everything restarts')
  await says('Toolyard may be restarting')
  await says('this page shows what became of it')
  expect(document.body.textContent).not.toContain('Could not restart')
})

test('of several servers each whose answer was lost is neither done nor refused', async () => {
  await show()
  await press('Restart', document.querySelector('section[aria-label="Chosen servers"]'))
  const dialog = () => document.querySelector('[role="dialog"]')
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  await press('Restart', dialog())
  await says('0 of 2 done, 0 failed, 0 skipped, 2 not known')
  expect(dialog()?.textContent).toContain('Not known')
  expect(dialog()?.textContent).not.toContain('Refused')
})
