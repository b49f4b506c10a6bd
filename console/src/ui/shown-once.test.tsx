// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { hasUnsaved } from '@/lib/form'
import { OnceCode, useShownOnce } from './shown-once'

let root: Root | undefined
let closed = 0

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

beforeEach(() => {
  closed = 0
})

afterEach(() => {
  act(() => root?.unmount())
  document.body.replaceChildren()
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})

function Window({ shown }: { shown: boolean }) {
  const once = useShownOnce({
    shown,
    lost: 'It is lost',
    onClose: () => {
      closed += 1
    },
  })
  return (
    <>
      {shown && <OnceCode code="secret" label="The secret" onCopied={once.settle} />}
      {once.warning}
      <button id="close" type="button" onClick={once.close}>
        Close
      </button>
    </>
  )
}

function show(shown: boolean): void {
  const place = document.body.appendChild(document.createElement('div'))
  root = createRoot(place)
  act(() => root?.render(<Window shown={shown} />))
}

function close(): void {
  act(() => document.querySelector<HTMLButtonElement>('#close')?.click())
}

test('a window with a secret that is shown once says what is lost before it closes', () => {
  show(true)
  close()
  expect(closed).toBe(0)
  expect(document.querySelector('[role="alert"]')?.textContent).toBe('It is lost')
  close()
  expect(closed).toBe(1)
})

function copyByHand(text: string): void {
  vi.spyOn(document, 'getSelection').mockReturnValue({ toString: () => text } as Selection) // as: all that is asked of it
  act(() => {
    document.querySelector('code')?.dispatchEvent(new Event('copy', { bubbles: true }))
  })
}

test('what was not copied, or in part, is not lost by one Escape', async () => {
  show(true)
  copyByHand('sec')
  vi.stubGlobal('navigator', { clipboard: { writeText: () => Promise.reject(new Error('refused')) } })
  await act(async () => document.querySelector<HTMLButtonElement>('button[aria-label*="copy"]')?.click())
  close()
  expect(closed).toBe(0)
  expect(hasUnsaved()).toBe(true)
})

test('it closes at once when the secret was copied by hand, or is not there yet', () => {
  show(true)
  copyByHand('secret\n')
  close()
  expect(closed).toBe(1)
  act(() => root?.unmount())
  show(false)
  close()
  expect(closed).toBe(2)
})
