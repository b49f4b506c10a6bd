import { expect, test } from 'vitest'
import { misfit, serverActions } from './actions'
import { isBeingDeleted } from './public/phase'

const deleted = { enabled: true, phase: 'stopping', message: 'being deleted; its toolbox is silent' } as const

test('nothing is done to a server that is being deleted', () => {
  expect(isBeingDeleted(deleted)).toBe(true)
  for (const { id } of serverActions()) expect(misfit(id, deleted)).toBe('It is being deleted')
})

test('a server whose toolbox was removed is moved before it is started, and can be stopped and deleted', () => {
  const removed = { phase: 'failed', message: '', toolbox_removed_at: '2026-11-29T16:00:00Z' } as const
  const why = 'The toolbox where it must run was removed: move it to another first'
  expect(misfit('restart', { ...removed, enabled: true })).toBe(why)
  expect(misfit('start', { ...removed, enabled: false })).toBe(why)
  expect(misfit('stop', { ...removed, enabled: true })).toBeUndefined()
  expect(misfit('delete', { ...removed, enabled: true })).toBeUndefined()
})

test('a server that only stops can be started again', () => {
  const stopping = { enabled: false, phase: 'stopping', message: '' } as const
  expect(isBeingDeleted(stopping)).toBe(false)
  expect(misfit('start', stopping)).toBeUndefined()
})
