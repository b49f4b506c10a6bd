// @vitest-environment happy-dom
import { act, type ComponentType, useState } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { later } from './later'
import { ToastProvider } from './toast'

let root: Root | undefined

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

afterEach(() => {
  act(() => root?.unmount())
  document.body.replaceChildren()
})

interface Props {
  open: boolean
  onOpenChange: (open: boolean) => void
}

/** A page with something typed, and a button that opens what comes later. */
function Page({ Window }: { Window: ComponentType<Props> }) {
  const [open, setOpen] = useState(false)
  return (
    <ToastProvider>
      <input defaultValue="typed" />
      <button id="open" type="button" aria-expanded={open} onClick={() => setOpen(true)}>
        Open
      </button>
      <Window open={open} onOpenChange={setOpen} />
    </ToastProvider>
  )
}

function show(load: () => Promise<ComponentType<Props>>): () => Promise<void> {
  const Window = later<Props>(load, ({ onOpenChange }) => onOpenChange(false))
  const place = document.body.appendChild(document.createElement('div'))
  root = createRoot(place)
  act(() => root?.render(<Page Window={Window} />))
  return () => act(async () => document.querySelector<HTMLButtonElement>('#open')?.click())
}

test('a window whose code does not come takes nothing of the page away, says so, and opens the next time', async () => {
  let away = true
  const open = show(() =>
    away
      ? Promise.reject(
          new TypeError('Failed to fetch dynamically imported module: http://x.test/assets/window-1.js'),
        )
      : Promise.resolve(({ open }) => (open ? <p>the window</p> : null)),
  )
  await open()
  expect(document.body.textContent).toContain('Toolyard does not answer')
  expect(document.body.textContent).not.toContain('http://x.test')
  expect(document.querySelector('input')?.value).toBe('typed')
  expect(document.querySelector('#open')?.getAttribute('aria-expanded')).toBe('false')
  away = false
  await open()
  expect(document.body.textContent).toContain('the window')
})
