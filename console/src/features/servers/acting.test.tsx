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
const onDeleted = vi.fn()

function Restart() {
  const act = useAct()
  return (
    <button type="button" onClick={() => void act('restart', 'everything')}>
      Restart everything
    </button>
  )
}

function Delete() {
  const act = useAct()
  return (
    <button type="button" onClick={() => void act('delete', 'everything')}>
      Delete everything
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
  onDeleted.mockReset()
})

/** Every request arrives, and no answer comes back. */
const cut = () => Promise.reject(new TypeError('the connection was cut'))

const notFound = () =>
  Promise.resolve(
    Response.json(
      { type: '', title: 'no such thing', detail: 'it does not exist', status: 404, code: 'not_found' },
      { status: 404 },
    ),
  )

/** As what stands before Toolyard answers while that is restarted. */
const notFoundOfAProxy = () => Promise.resolve(new Response('404 page not found', { status: 404 }))

async function show(answer: () => Promise<Response> = cut) {
  vi.stubGlobal('fetch', answer)
  const client = new QueryClient()
  client.setQueryData(sessionQuery.queryKey, {
    account: 'org/user:operator',
    kind: 'user',
    display: 'operator@example.test',
    organization: 'default',
    role: 'operator',
    actions: ['server:operate', 'server:delete'],
    first_run: false,
  })
  root = createRoot(document.body.appendChild(document.createElement('div')))
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <ToastProvider>
          <ActingProvider onDeleted={onDeleted}>
            <Restart />
            <Delete />
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
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  await press('Restart', dialog())
  await says('0 of 2 done, 0 failed, 0 skipped, 2 not known')
  expect(dialog()?.textContent).toContain('Not known')
  expect(dialog()?.textContent).not.toContain('Refused')
})

const dialog = () => document.querySelector('[role="dialog"]')

async function type(value: string) {
  await vi.waitFor(() => expect(dialog()?.querySelector('input')).not.toBeNull())
  const input = dialog()?.querySelector('input')
  const write = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value')?.set
  await act(async () => {
    write?.call(input, value)
    input?.dispatchEvent(new Event('input', { bubbles: true }))
  })
}

test('a server that somebody else deleted first counts as deleted', async () => {
  await show(notFound)
  await press('Delete everything')
  await type('everything')
  await press('Delete', dialog())
  await vi.waitFor(() => expect(onDeleted).toHaveBeenCalledOnce())
})

test('a delete whose answer was lost is not asked for again, and a notice says so', async () => {
  await show()
  await press('Delete everything')
  await type('everything')
  await press('Delete', dialog())
  await says('It is not known whether everything is being deleted')
  expect(dialog()).toBeNull()
  expect(onDeleted).not.toHaveBeenCalled()
})

test('a delete that only what stands before Toolyard answered is not done', async () => {
  await show(notFoundOfAProxy)
  await press('Delete everything')
  await type('everything')
  await press('Delete', dialog())
  await says('Toolyard answered 404 without saying why')
  expect(onDeleted).not.toHaveBeenCalled()
})

test('of several servers those that somebody else deleted first count as deleted, and no others', async () => {
  for (const [answer, summary] of [
    [notFound, '2 of 2 done, 0 failed, 0 skipped'],
    [notFoundOfAProxy, '0 of 2 done, 2 failed, 0 skipped'],
  ] as const) {
    await show(answer)
    await press('Delete', document.querySelector('section[aria-label="Chosen servers"]'))
    await type('2')
    await press('Delete', dialog())
    await says(summary)
    await act(async () => root.unmount())
    document.body.replaceChildren()
  }
})
