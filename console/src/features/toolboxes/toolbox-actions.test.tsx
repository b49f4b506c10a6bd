// @vitest-environment happy-dom
import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Toolbox } from '@/api/generated/types'
import { sessionQuery } from '@/api/session'
import { loadWindows } from '@/ui/dialog'
import { ToastProvider } from '@/ui/toast'
import { useToolboxActions } from './toolbox-actions'

vi.mock('@tanstack/react-router', () => ({
  createLink: () => () => null,
  useBlocker: () => ({ status: 'idle' }),
}))

// as: what the actions look at.
const TOOLBOX = { name: 'edge-1', draining: false, instances: 0, labels: {} } as unknown as Toolbox

let root: Root

function Actions() {
  const { actions, dialogs } = useToolboxActions(TOOLBOX)
  return (
    <>
      {actions.map(({ id, label, run }) => (
        <button key={id} type="button" onClick={run}>
          {label}
        </button>
      ))}
      {dialogs}
    </>
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

const dialog = () => document.querySelector('[role="dialog"]')

const press = (label: string, where: Element | null = document.body) =>
  act(async () => {
    const buttons = [...(where?.querySelectorAll('button') ?? [])]
    buttons.find((button) => button.textContent === label)?.click()
  })

test('a drain whose answer was lost leaves no window that asks for it again', async () => {
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('the connection was cut')))
  const client = new QueryClient()
  client.setQueryData(sessionQuery.queryKey, {
    account: 'org/user:operator',
    kind: 'user',
    display: 'operator@example.test',
    organization: 'default',
    role: 'operator',
    actions: ['toolbox:manage'],
    first_run: false,
  })
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <ToastProvider>
          <Actions />
        </ToastProvider>
      </QueryClientProvider>,
    ),
  )
  await press('Drain')
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  await press('Drain', dialog())
  await vi.waitFor(async () => {
    await act(async () => undefined)
    expect(document.body.textContent).toContain('It is not known whether edge-1 takes nothing new')
  })
  expect(dialog()).toBeNull()
})
