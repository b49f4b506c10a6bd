// @vitest-environment happy-dom
import { act, useState } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { ConfirmDialog, loadWindows } from './dialog'
import { ToastProvider, toast } from './toast'

vi.mock('@tanstack/react-router', () => ({ useBlocker: () => ({ status: 'idle' }) }))

let root: Root
let know: () => void

/** As what is thrown when the answer to a change was lost. */
class Lost extends Error {
  readonly detail = 'the connection was cut'
  known = () =>
    new Promise<void>((resolve) => {
      know = resolve
    })
}

const lost = () => new Lost('It is not known whether time is deleted')

/** A row of a list that asks before the thing is deleted, and goes with it. */
function Row({ onConfirm }: { onConfirm: () => Promise<unknown> }) {
  const [open, setOpen] = useState(true)
  return (
    <ConfirmDialog
      open={open}
      onOpenChange={setOpen}
      title="Delete time?"
      confirm="Delete"
      onConfirm={onConfirm}
    />
  )
}

const show = (page: React.ReactNode) => act(async () => root.render(<ToastProvider>{page}</ToastProvider>))

beforeAll(async () => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  // Tooltips are popovers, which this document has not.
  Object.assign(HTMLElement.prototype, { showPopover: () => undefined, hidePopover: () => undefined })
  await loadWindows()
})

beforeEach(() => {
  root = createRoot(document.body.appendChild(document.createElement('div')))
})

afterEach(async () => {
  await act(async () => root.unmount())
  document.body.replaceChildren()
  vi.useRealTimers()
})

const notices = () => document.querySelector('[aria-label="Notifications"]')
const dialog = () => document.querySelector('[role="dialog"]')

const close = () =>
  act(() => notices()?.querySelector<HTMLButtonElement>('button[aria-label^="Close"]')?.click())

const submit = () =>
  act(async () => {
    dialog()
      ?.querySelector('form')
      ?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true }))
  })

test('a notice that something is not known goes once it is', async () => {
  vi.useFakeTimers()
  await show(null)
  act(() => toast.problem('It could not be deleted', lost()))
  expect(notices()?.textContent).toContain('It is not known whether time is deleted')
  expect(notices()?.textContent).not.toContain('It could not be deleted')
  await act(() => vi.advanceTimersByTimeAsync(60_000))
  expect(notices()).not.toBeNull()
  know()
  await act(() => vi.advanceTimersByTimeAsync(1))
  expect(notices()).toBeNull()
})

test('while somebody reads a notice it stays, also when it is known', async () => {
  vi.useFakeTimers()
  await show(null)
  act(() => toast.problem('It could not be deleted', lost()))
  act(() => notices()?.dispatchEvent(new FocusEvent('focusin', { bubbles: true })))
  know()
  await act(() => vi.advanceTimersByTimeAsync(60_000))
  expect(notices()).not.toBeNull()
  act(() => notices()?.dispatchEvent(new FocusEvent('focusout', { bubbles: true })))
  await act(() => vi.advanceTimersByTimeAsync(5_000))
  expect(notices()).toBeNull()
})

test('a notice that something is not known can be closed before', async () => {
  await show(null)
  act(() => toast.problem('It could not be deleted', lost()))
  close()
  expect(notices()).toBeNull()
})

test('a question does not ask again for what may be done, and says so where it is not lost with the thing', async () => {
  await show(<Row onConfirm={() => Promise.reject(lost())} />)
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  await submit()
  expect(dialog()).toBeNull()
  await show(null)
  expect(notices()?.textContent).toContain('It is not known whether time is deleted')
  close()
})

test('what was refused is said in the question, which stays', async () => {
  await show(<Row onConfirm={() => Promise.reject(new Error('it is used by time'))} />)
  await vi.waitFor(() => expect(dialog()).not.toBeNull())
  await submit()
  expect(dialog()?.textContent).toContain('it is used by time')
  expect(notices()).toBeNull()
})
