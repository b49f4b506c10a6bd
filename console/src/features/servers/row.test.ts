import { expect, test } from 'vitest'
import type { Server } from '@/api/generated/types'
import { memoryOf } from './row'

test('an instance that nobody hears of uses no memory as far as anybody knows', () => {
  const instances = [
    { phase: 'ready', usage: { memory_bytes: 10 } },
    { phase: 'unknown', usage: { memory_bytes: 100 } },
  ]
  // as: only what is looked at.
  expect(memoryOf({ instances } as unknown as Server)).toBe(10)
})
