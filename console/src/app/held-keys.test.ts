import { expect, test } from 'vitest'
import { type Held, isHeld, take } from './held-keys'

function typed(...keys: string[]): Held | undefined {
  const held = keys.filter(isHeld)
  return held.reduce<Held | undefined>((held, key) => held && take(held, key), { text: '', enter: false })
}

test('what is typed before the search is there is what it begins with', () => {
  expect(typed('t', 'i', 'm', 'x', 'Backspace', 'e')).toEqual({ text: 'time', enter: false })
  expect(typed('Shift', 'T', 'ArrowDown', 'ü')).toEqual({ text: 'Tü', enter: false })
})

test('Enter is kept, and what comes after it is nobody’s', () => {
  expect(typed('a', 'Enter', 'g', 's')).toEqual({ text: 'a', enter: true })
})

test('Escape calls it off', () => {
  expect(typed('a', 'Escape', 'b')).toBeUndefined()
})

test('keys of the browser stay with it', () => {
  for (const key of ['F5', 'Tab', 'ArrowDown', 'Shift', 'PageUp']) expect(isHeld(key)).toBe(false)
})
