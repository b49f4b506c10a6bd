import { expect, test } from 'vitest'
import type { Phase, Server } from '@/api/generated/types'
import { deployedOf } from './deployed'

const server = (name: string, phase: Phase, entry = 'io.example/time') =>
  ({ name, phase, entry: { name: entry, version: '1' } }) as Server // as: only these are looked at

test('of the servers of an entry those in trouble are first, and others that only sound like it are none', () => {
  const found = deployedOf(
    [
      server('b', 'ready'),
      server('a', 'ready'),
      server('c', 'stopped'),
      server('d', 'failed'),
      server('e', 'degraded'),
      server('f', 'failed', 'io.example/time-zones'),
    ],
    'io.example/time',
  )
  expect(found.map(({ name }) => name)).toEqual(['d', 'e', 'a', 'b', 'c'])
})
