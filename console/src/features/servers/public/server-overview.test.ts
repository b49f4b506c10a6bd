import { expect, test } from 'vitest'
import type { Phase, Rollout } from '@/api/generated/types'
import { remoteText } from './server-overview'

const text = (phase: Phase, state?: Rollout['state']) =>
  remoteText({ phase, rollout: state === undefined ? null : ({ state } as Rollout) }) // as: only what is looked at

test('a remote that answers is not said to be on its way', () => {
  for (const phase of ['ready', 'degraded'] as const) {
    expect(text(phase, 'done')).toContain('no instance of it here')
    expect(text(phase, 'done')).not.toMatch(/yet|as soon as/)
  }
})

test('one that does not answer yet is, and one that failed needs somebody', () => {
  expect(text('starting', 'progressing')).toContain('as soon as that answers')
  expect(text('failed', 'failed')).toContain('correct its settings')
})
