import { expect, test } from 'vitest'
import { misfit, serverActions } from './actions'
import { isBeingDeleted } from './public/phase'

const deleted = { enabled: true, phase: 'stopping', message: 'being deleted; its toolbox is silent' } as const

test('nothing is done to a server that is being deleted', () => {
  expect(isBeingDeleted(deleted)).toBe(true)
  for (const { id } of serverActions()) expect(misfit(id, deleted)).toBe('It is being deleted')
})

test('a server that only stops can be started again', () => {
  const stopping = { enabled: false, phase: 'stopping', message: '' } as const
  expect(isBeingDeleted(stopping)).toBe(false)
  expect(misfit('start', stopping)).toBeUndefined()
})
