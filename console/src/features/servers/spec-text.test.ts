import { expect, test } from 'vitest'
import type { RevisionSpec } from '@/api/generated/types'
import { piecesOf, specText, valueText } from './spec-text'

const spec = (environment: Record<string, unknown>): RevisionSpec => ({
  entry: { name: 'io.example/time', version: '1.0.0' },
  // as: the pieces of a package's values are `unknown` to the document of the API.
  runtime: {
    kind: 'npm',
    identifier: '@example/time',
    version: '1.0.0',
    environment,
  } as RevisionSpec['runtime'],
  limits: { memory_bytes: 512 * 1024 * 1024, processes: 64 },
  paths: [{ path: '/srv/data', writable: true }],
  strategy: 'surge',
  start_timeout_ms: 60_000,
})

test('writes one fact a line, with what is not set left out', () => {
  expect(specText(spec({ TZ: [{ text: 'UTC' }] })).split('\n')).toEqual([
    'entry: io.example/time',
    'entry version: 1.0.0',
    'kind: npm',
    'identifier: @example/time',
    'version: 1.0.0',
    'environment.TZ: UTC',
    'memory limit: 512 MiB',
    'process limit: 64',
    'processor limit: none',
    'path: /srv/data (writable)',
    'strategy: surge',
    'start timeout: 1 min',
  ])
})

test('names credentials where their values would be', () => {
  const value = [{ text: 'Bearer ' }, { credential: 'c1' }]
  expect(valueText(value, (id) => (id === 'c1' ? 'my-token' : undefined))).toBe(
    'Bearer [credential my-token]',
  )
  expect(valueText(value)).toBe('Bearer [credential c1]')
})

test('takes lists of other things for what they are', () => {
  expect(piecesOf([])).toBeUndefined()
  expect(piecesOf(['a'])).toBeUndefined()
  expect(piecesOf([{ text: 1 }])).toBeUndefined()
})

test('no limit on disk is not written as nothing at all', () => {
  const limits = (disk_bytes: number) => ({ memory_bytes: 512 * 1024 * 1024, processes: 64, disk_bytes })
  expect(specText({ ...spec({}), limits: limits(0) })).toContain('disk limit: none')
  expect(specText({ ...spec({}), limits: limits(1024 * 1024) })).toContain('disk limit: 1 MiB')
})
