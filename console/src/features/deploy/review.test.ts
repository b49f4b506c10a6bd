import { expect, test } from 'vitest'
import { limitText } from './review'

test('no limit is not read as nothing at all', () => {
  expect(limitText('0', 'MiB')).toBe('without a limit')
  expect(limitText('0.0', 'mCPU')).toBe('without a limit')
  expect(limitText('2048', 'MiB')).toBe('at most 2048 MiB')
})
