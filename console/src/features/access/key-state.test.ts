import { expect, test } from 'vitest'
import type { ApiKey } from '@/api/generated/types'
import { keyState, scopeText } from './key-state'

const NOW = Date.parse('2026-11-22T12:00:00.000Z')
const KEY: ApiKey = {
  id: '1',
  name: 'ci',
  prefix: 'ty_0123',
  role: 'developer',
  created_at: '2026-11-01T00:00:00.000Z',
  created_by: 'user:1',
}

test('a key works until it expires or is revoked', () => {
  expect(keyState(KEY, NOW)).toBe('active')
  expect(keyState({ ...KEY, expires_at: '2026-11-22T12:00:00.001Z' }, NOW)).toBe('active')
  expect(keyState({ ...KEY, expires_at: '2026-11-22T12:00:00.000Z' }, NOW)).toBe('expired')
  expect(
    keyState({ ...KEY, expires_at: '2026-11-21T00:00:00.000Z', revoked_at: '2026-11-20T00:00:00.000Z' }, NOW),
  ).toBe('revoked')
})

test('a scope says what a key does and on what', () => {
  expect(scopeText(undefined)).toBe('All of its role')
  expect(scopeText({ actions: ['tool:call'] })).toBe('tool:call')
  expect(scopeText({ actions: ['tool:call', 'server:read'], resources: ['everything'] })).toBe(
    '2 actions on everything',
  )
  expect(scopeText({ actions: ['server:read', 'toolset:read', 'tool:call'] })).toBe('Call tools')
  expect(scopeText({ resources: ['a', 'b'] })).toBe('All of its role on 2 servers and toolsets')
})
