import { expect, test } from 'vitest'
import type { Instance, Server } from '@/api/generated/types'
import { queryOf } from '../log-lines'
import { isWritten, logOfRollout, logOfTrouble, PREVIOUS } from './logged'

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

test('a log is written only while something runs whose log it is', () => {
  // as: only what is looked at.
  const instances = [
    { id: 'ready', revision: 3, phase: 'ready' },
    { id: 'again', revision: 2, phase: 'failed', next_attempt_at: '2026-11-29T16:00:00.000Z' },
    { id: 'over', revision: 1, phase: 'failed' },
  ] as unknown as Instance[]
  const written = (source: Parameters<typeof isWritten>[0]) => isWritten(source, { instances })
  expect(written({})).toBe(true)
  expect(written({ instance: 'ready' })).toBe(true)
  expect(written({ instance: 'again' })).toBe(true)
  expect(written({ instance: 'over' })).toBe(false)
  expect(written({ instance: 'gone' })).toBe(false)
  expect(written({ instance: PREVIOUS })).toBe(false)
  expect(written({ revision: 3 })).toBe(true)
  expect(written({ revision: 1 })).toBe(false)
  expect(isWritten({}, { instances: [] })).toBe(false)
  const installed = server({ rollout: rollout('progressing', null, 4) })
  expect(isWritten({}, installed)).toBe(true)
  expect(isWritten({ revision: 4 }, installed)).toBe(true)
  expect(isWritten({ revision: 3 }, installed)).toBe(false)
})
