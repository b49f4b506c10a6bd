import { expect, test } from 'vitest'
import type { Revision, Rollout } from '@/api/generated/types'
import { revisionTrouble } from './revision-state'

const revision = (number: number, served?: boolean, lock_digest: string | null = 'sha256:0', kind = 'npm') =>
  ({ number, served, lock_digest, spec: { runtime: { kind } } }) as unknown as Revision // as: only what is looked at
const after = (parts: object) => ({ rollout: parts as Rollout }) // as: only what is looked at

test('a revision that never served says so, however many rollouts were since', () => {
  const failed = after({ state: 'rolled_back', from_revision: 1, to_revision: 2 })
  const later = after({ state: 'done', from_revision: 1, to_revision: 3 })
  for (const server of [failed, later, {}]) {
    expect(revisionTrouble(revision(2, false), server)).toBe('never served')
    expect(revisionTrouble(revision(1, true), server)).toBeUndefined()
  }
})

test('one that served for a while, or of which that is not known, is not said never to have', () => {
  const switched = { state: 'rolled_back', to_revision: 2, switched_at: '2026-11-29T16:00:00Z' }
  expect(revisionTrouble(revision(2, true), after(switched))).toBe('rolled back')
  const back = after({ state: 'rolled_back', from_revision: 3, to_revision: 1 })
  expect(revisionTrouble(revision(1, true), back)).toBe('its last rollout failed')
  expect(revisionTrouble(revision(1), back)).toBe('its last rollout failed')
  expect(revisionTrouble(revision(1), {})).toBeUndefined()
})

test('what was never installed says so, unless it is being installed or there is nothing to install', () => {
  expect(revisionTrouble(revision(1, false, null), {})).toBe('never installed')
  expect(revisionTrouble(revision(1, true, null, 'remote'), {})).toBeUndefined()
  const progressing = after({ state: 'progressing', to_revision: 2 })
  expect(revisionTrouble(revision(2, false, null), progressing)).toBeUndefined()
  expect(revisionTrouble(revision(2, false), progressing)).toBeUndefined()
})
