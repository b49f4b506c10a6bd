import { expect, test } from 'vitest'
import { callPoints, callTotals, resourcePoints } from './metric-points'

const bucket = (at: string, count: number, errors = 0) => ({
  at,
  count,
  errors,
  p50_us: 1000,
  p95_us: 2000,
  p99_us: 3000,
})

test('fills in the stretches without a call', () => {
  const points = callPoints({
    since: '2026-01-01T00:00:00Z',
    until: '2026-01-01T00:02:30Z',
    bucket_seconds: 60,
    calls: [bucket('2026-01-01T00:01:00Z', 5, 1)],
  })
  expect(points.count).toEqual([0, 5, 0])
  expect(points.errors).toEqual([0, 1, 0])
  expect(points.p95).toEqual([null, 2, null])
})

test('is bounded whatever the answer says', () => {
  const points = callPoints({
    since: '1970-01-01T00:00:00Z',
    until: '2026-01-01T00:00:00Z',
    bucket_seconds: 0,
    calls: [],
  })
  expect(points.times).toHaveLength(2000)
})

test('sums up', () => {
  expect(callTotals([bucket('a', 2, 1), bucket('b', 3)])).toEqual({ count: 5, errors: 1, slowest: 2 })
  expect(callTotals([])).toEqual({ count: 0, errors: 0, slowest: undefined })
})

test('brings instances to one axis', () => {
  const sample = (at: string, memory_bytes: number) => ({ at, memory_bytes, cpu: null, processes: 1 })
  const points = resourcePoints([
    { instance: 'a', samples: [sample('2026-01-01T00:00:01Z', 1), sample('2026-01-01T00:00:14Z', 2)] },
    { instance: 'b', samples: [sample('2026-01-01T00:00:16Z', 3)] },
  ])
  expect(points.times).toHaveLength(2)
  expect(points.instances[0]?.memory).toEqual([1, 2])
  expect(points.instances[1]?.memory).toEqual([null, 3])
})
