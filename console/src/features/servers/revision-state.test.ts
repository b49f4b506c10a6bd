import { expect, test } from 'vitest'
import type { Revision, Rollout } from '@/api/generated/types'
import { revisionTrouble } from './revision-state'

const revision = (number: number, lock_digest: string | null = 'sha256:0', kind = 'npm') =>
  ({ number, lock_digest, spec: { runtime: { kind } } }) as unknown as Revision // as: only what is looked at
const after = (parts: object) => ({ rollout: parts as Rollout }) // as: only what is looked at

test('a revision whose rollout failed before it took a call never served', () => {
  const failed = after({ state: 'rolled_back', from_revision: 1, to_revision: 2 })
  expect(revisionTrouble(revision(2), failed)).toBe('never served')
  expect(revisionTrouble(revision(1), failed)).toBeUndefined()
  expect(revisionTrouble(revision(1), after({ state: 'failed', to_revision: 1 }))).toBe('never served')
})

test('one that served for a while, or may have served before, is not said never to have', () => {
  const switched = {
    state: 'rolled_back',
    from_revision: 1,
    to_revision: 2,
    switched_at: '2026-11-29T16:00:00Z',
  }
  expect(revisionTrouble(revision(2), after(switched))).toBe('rolled back')
  const back = after({ state: 'rolled_back', from_revision: 3, to_revision: 1 })
  expect(revisionTrouble(revision(1), back)).toBe('its last rollout failed')
})

test('what was never installed says so, unless it is being installed or there is nothing to install', () => {
  expect(revisionTrouble(revision(1, null), {})).toBe('never installed')
  expect(revisionTrouble(revision(1, null, 'remote'), {})).toBeUndefined()
  expect(revisionTrouble(revision(2, null), after({ state: 'progressing', to_revision: 2 }))).toBeUndefined()
})
