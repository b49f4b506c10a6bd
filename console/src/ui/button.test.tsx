// @vitest-environment happy-dom
import { act } from 'react'
import { createRoot } from 'react-dom/client'
import { beforeAll, expect, test } from 'vitest'
import { Button } from './button'

beforeAll(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
})

test('a button that cannot be pressed any more keeps the focus, and says why', () => {
  const place = document.body.appendChild(document.createElement('div'))
  const root = createRoot(place)
  const show = (reason?: string) => act(() => root.render(<Button disabledReason={reason}>Move it</Button>))
  show()
  const button = place.querySelector('button')
  button?.focus()
  expect(button?.getAttribute('aria-describedby')).toBeNull()
  show('Choose another place first')
  expect(document.activeElement).toBe(button)
  expect(button?.getAttribute('aria-disabled')).toBe('true')
  const why = document.getElementById(button?.getAttribute('aria-describedby') ?? '')
  expect(why?.textContent).toBe('Choose another place first')
  act(() => root.unmount())
})
