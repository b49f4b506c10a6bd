import { expect, test } from 'vitest'
import { elapsed } from './relative-time'

test('what is over took as long as it took, and what goes on counts whole seconds', () => {
  expect(elapsed(1000, 1412, 999_999)).toBe(412)
  expect(elapsed(1000, undefined, 4999)).toBe(3000)
  // Clocks of two machines differ.
  expect(elapsed(1000, 900, 4999)).toBe(0)
  expect(elapsed(1000, undefined, 0)).toBe(0)
})
