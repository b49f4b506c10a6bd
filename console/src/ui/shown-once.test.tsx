// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
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

test('it closes at once when the secret was copied by hand, or is not there yet', () => {
  show(true)
  act(() => {
    document.querySelector('code')?.dispatchEvent(new Event('copy', { bubbles: true }))
  })
  close()
  expect(closed).toBe(1)
  act(() => root?.unmount())
  show(false)
  close()
  expect(closed).toBe(2)
})
