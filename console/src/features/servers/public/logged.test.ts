import { expect, test } from 'vitest'
import type { Server } from '@/api/generated/types'
import { queryOf } from '../log-lines'
import { logOfRollout, logOfTrouble, PREVIOUS } from './logged'

const instance = (id: string, revision: number) => ({ id, revision, phase: 'ready' })

function server(parts: object): Server {
  // as: only what is looked at.
  return {
    kind: 'npm',
    enabled: true,
    reason: 'crash_loop',
    revision: 1,
    instances: [],
    ...parts,
  } as unknown as Server
}

const rollout = (state: string, from: number | null, to: number) => ({
  state,
  from_revision: from,
  to_revision: to,
})

test('a revision that was rolled back has its own log, not that of what serves', () => {
  const rolledBack = server({
    instance_id: 'one',
    instances: [instance('one', 1)],
    rollout: rollout('rolled_back', 1, 2),
  })
  expect(logOfRollout(rolledBack)).toEqual({ revision: 2 })
})

test('a first deployment that failed has the log of its revision without any instance', () => {
  const failed = server({ rollout: rollout('failed', null, 1), reason: 'install_failed' })
  expect(logOfRollout(failed)).toEqual({ revision: 1 })
  expect(logOfTrouble(failed)).toEqual({ revision: 1 })
})

test('a restart that failed is not taken for the instance of the same revision that serves on', () => {
  const failed = server({
    instance_id: 'one',
    instances: [instance('one', 1)],
    rollout: rollout('rolled_back', 1, 1),
  })
  const log = logOfRollout(failed)
  expect(log).toEqual({ revision: 1, instance: PREVIOUS })
  expect(queryOf(log ?? {})).toEqual({ revision: 1, previous: true })
})

test('a rollout under way has the log of the instance that it brings', () => {
  const underWay = server({
    instance_id: 'one',
    instances: [instance('one', 1), instance('two', 2)],
    rollout: rollout('progressing', 1, 2),
  })
  expect(logOfRollout(underWay)).toEqual({ instance: 'two' })
})

test('no log is offered where none can be read', () => {
  const instances = [instance('one', 1)]
  expect(logOfTrouble(server({ instances, reason: 'toolbox_unreachable' }))).toBeUndefined()
  expect(logOfTrouble(server({ instances, kind: 'remote' }))).toBeUndefined()
  expect(logOfTrouble(server({ reason: 'awaiting_toolbox' }))).toBeUndefined()
})
