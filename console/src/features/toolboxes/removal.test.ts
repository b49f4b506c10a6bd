import { expect, test } from 'vitest'
import { removalOf } from './removal'

const servers = [
  { name: 'bound', toolbox: 'edge2' },
  { name: 'free' },
  { name: 'also-bound', toolbox: 'edge2' },
  { name: 'elsewhere', toolbox: 'edge1' },
]

test('before a drain, servers that must run there keep it from being removed', () => {
  expect(removalOf({ name: 'edge2', draining: false, drain: null }, servers)).toEqual({
    refusedFor: ['also-bound', 'bound'],
    stops: [],
  })
  expect(removalOf({ name: 'edge3', draining: false, drain: null }, servers).refusedFor).toEqual([])
})

test('after one they stop with it, and so does what has no other place by its labels', () => {
  const drain = { moving: 0, ending: 0, stays: ['bound', 'labelled'] }
  expect(removalOf({ name: 'edge2', draining: true, drain }, servers)).toEqual({
    refusedFor: [],
    stops: ['also-bound', 'bound', 'labelled'],
  })
})
