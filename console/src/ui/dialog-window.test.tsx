// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { hasUnsaved, useUnsaved } from '@/lib/form'
import { CancelButton } from './dialog'
import { DialogWindow } from './dialog-window'
import { CloseButton, OnceCode, useShownOnce } from './shown-once'

const leaving: { block?: (way: object) => boolean; unload?: () => boolean } = {}
const blocker = { status: 'idle', reset: vi.fn(), proceed: vi.fn() }
vi.mock('@tanstack/react-router', () => ({
  useBlocker: (options: { shouldBlockFn: (way: object) => boolean; enableBeforeUnload: () => boolean }) => {
    leaving.block = options.shouldBlockFn
    leaving.unload = options.enableBeforeUnload
    return blocker
  },
}))

let root: Root | undefined
let closed = 0

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  // Tooltips are popovers, which this document has not.
  Object.assign(HTMLElement.prototype, { showPopover: () => undefined, hidePopover: () => undefined })
})

beforeEach(() => {
  closed = 0
  blocker.status = 'idle'
})

afterEach(() => {
  act(() => root?.unmount())
  document.body.replaceChildren()
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})

const onClose = (open: boolean) => {
  if (!open) closed += 1
}

function Typed({ typed, saving }: { typed: boolean; saving: boolean }) {
  useUnsaved(typed || saving, { saving })
  return null
}

/** A page on which something was typed, and a window that opens over it. */
function Page({
  open = true,
  typed = false,
  saving = false,
  disposable = false,
}: {
  open?: boolean
  typed?: boolean
  saving?: boolean
  disposable?: boolean
}) {
  useUnsaved(true)
  if (!open) return null
  return (
    <DialogWindow open onOpenChange={onClose} title="Create a key" disposable={disposable}>
      <Typed typed={typed} saving={saving} />
      <CancelButton />
      <CloseButton>Done</CloseButton>
    </DialogWindow>
  )
}

function Secret() {
  const settle = useShownOnce({ shown: true, lost: 'The secret is lost' })
  return (
    <DialogWindow open onOpenChange={onClose} title="The key is made">
      <OnceCode code="secret" label="The secret" onCopied={settle} />
      <CloseButton>Done</CloseButton>
    </DialogWindow>
  )
}

async function show(window: React.ReactNode): Promise<void> {
  const place = document.body.appendChild(document.createElement('div'))
  root = createRoot(place)
  await act(async () => root?.render(window))
}

const again = (window: React.ReactNode) => act(async () => root?.render(window))

const press = (label: string) =>
  act(async () => {
    const all = [...document.querySelectorAll<HTMLButtonElement>('button')]
    const named = all.filter((one) => (one.getAttribute('aria-label') ?? one.textContent) === label)
    expect(named).not.toEqual([])
    named.at(0)?.click()
  })

const text = () => document.body.textContent ?? ''

test('a window in which nothing was typed closes at once, over a page that is not saved too', async () => {
  await show(<Page open={false} />)
  await again(<Page />)
  await press('Close')
  expect(closed).toBe(1)
  expect(text()).not.toContain('Leave without saving?')
})

test('a window in which something was typed asks each time before it closes', async () => {
  await show(<Page open={false} />)
  await again(<Page />)
  await again(<Page typed />)
  for (const _ of [1, 2]) {
    await press('Close')
    expect(closed).toBe(0)
    expect(text()).toContain('Leave without saving?')
    await press('Stay')
    expect(text()).not.toContain('Leave without saving?')
  }
  await press('Close')
  await press('Leave')
  expect(closed).toBe(1)
})

test('a page is left with a window in which something was typed only after a question', async () => {
  await show(<Page open={false} />)
  await again(<Page />)
  const away = { current: { pathname: '/access/keys' }, next: { pathname: '/servers' } }
  expect(leaving.block?.(away)).toBe(false)
  await again(<Page typed />)
  let blocked: boolean | undefined
  act(() => {
    blocked = leaving.block?.(away)
    blocker.status = 'blocked'
  })
  expect(blocked).toBe(true)
  expect(leaving.unload?.()).toBe(true)
  await press('Leave')
  expect(blocker.proceed).toHaveBeenCalledOnce()
  expect(closed).toBe(0)
})

test('what is only a password is no question', async () => {
  await show(<Page open={false} />)
  await again(<Page disposable />)
  await again(<Page typed disposable />)
  await press('Close')
  expect(closed).toBe(1)
})

const pressEscape = () =>
  act(async () => {
    const { activeElement } = document
    activeElement?.dispatchEvent(
      new KeyboardEvent('keydown', { key: 'Escape', bubbles: true, cancelable: true }),
    )
  })

test('while something is being sent a window closes by no way, and closes again when the answer was lost', async () => {
  for (const disposable of [false, true]) {
    closed = 0
    await show(<Page open={false} />)
    await again(<Page disposable={disposable} />)
    await again(<Page typed saving disposable={disposable} />)
    expect(text()).toContain('It is being sent')
    for (const way of ['Close', 'Cancel', 'Done']) await press(way)
    await pressEscape()
    expect(closed).toBe(0)
    expect(text()).not.toContain('Leave')
    await again(<Page typed disposable={disposable} />)
    expect(document.querySelector('[role="status"]')?.textContent).toBe('')
    await press('Cancel')
    expect(closed).toBe(1)
    await act(async () => root?.unmount())
  }
})

test('a page is left while something is being sent only after a question', async () => {
  await show(<Page open={false} />)
  await again(<Page />)
  await again(<Page typed saving />)
  await act(async () => {
    expect(leaving.block?.({ current: { pathname: '/access/keys' }, next: { pathname: '/servers' } })).toBe(
      true,
    )
  })
  expect(leaving.unload?.()).toBe(true)
  expect(text()).toContain('Leave without the answer?')
  await press('Stay')
  expect(closed).toBe(0)
})

test('a window whose answer does not come can be left after a while, after a question', async () => {
  vi.useFakeTimers()
  await show(<Page open={false} />)
  await again(<Page />)
  await again(<Page typed saving />)
  await act(async () => vi.advanceTimersByTime(29_000))
  await press('Close')
  expect(text()).not.toContain('Leave')
  await act(async () => vi.advanceTimersByTime(2_000))
  await press('Cancel')
  expect(closed).toBe(0)
  expect(text()).toContain('Leave without the answer?')
  await press('Leave')
  expect(closed).toBe(1)
  vi.useRealTimers()
})

function Sent({ shown }: { shown: boolean }) {
  useUnsaved(!shown, { saving: !shown })
  useShownOnce({ shown, lost: 'The secret is lost' })
  return null
}

function Sending({ shown }: { shown?: boolean }) {
  return (
    <DialogWindow open onOpenChange={onClose} title="Create a key">
      {shown !== undefined && <Sent shown={shown} />}
    </DialogWindow>
  )
}

test('a secret that came while a question stood is not given up by its answer', async () => {
  await show(<Sending />)
  await again(<Sending shown={false} />)
  await act(async () => {
    leaving.block?.({ current: { pathname: '/access/keys' }, next: { pathname: '/servers' } })
  })
  await again(<Sending shown />)
  await press('Leave')
  expect(closed).toBe(0)
  expect(text()).toContain('The secret is lost')
  await press('Leave')
  expect(closed).toBe(1)
})

test('a secret that is shown once is given up only by an answer, each time, also by its own button', async () => {
  await show(<Secret />)
  for (const way of ['Close', 'Done', 'Close']) {
    await press(way)
    expect(closed).toBe(0)
    expect(text()).toContain('The secret is lost')
    await press('Stay')
  }
})

function copyByHand(text: string): Promise<void> {
  vi.spyOn(document, 'getSelection').mockReturnValue({ toString: () => text } as Selection) // as: all that is asked of it
  return act(async () => {
    document.querySelector('code')?.dispatchEvent(new Event('copy', { bubbles: true }))
  })
}

test('a secret that was copied is not asked about, a part of it is', async () => {
  await show(<Secret />)
  await copyByHand('sec')
  await press('Done')
  expect(closed).toBe(0)
  await press('Stay')
  await copyByHand('secret\n')
  await press('Done')
  expect(closed).toBe(1)
})

test('a secret that the browser refused to copy is asked about', async () => {
  vi.stubGlobal('navigator', { clipboard: { writeText: () => Promise.reject(new Error('refused')) } })
  await show(<Secret />)
  await act(async () => document.querySelector<HTMLButtonElement>('button[aria-label*="copy" i]')?.click())
  await press('Done')
  expect(closed).toBe(0)
  expect(hasUnsaved()).toBe(true)
})
