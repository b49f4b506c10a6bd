import { expect, test } from 'vitest'
import type { Server } from '@/api/generated/types'
import { memoryOf, outdatedSecrets, placeText, toolboxesOf } from './row'

test('where a server is to run is said as it is meant, also when that is no more', () => {
  expect(placeText({ toolbox: null, toolbox_labels: {} })).toBe('any that can')
  expect(placeText({ toolbox: null, toolbox_labels: { zone: 'a', gpu: 'no' } })).toBe(
    'any with zone=a, gpu=no',
  )
  expect(placeText({ toolbox: 'edge' })).toBe('edge')
  const removed = { toolbox_removed_at: '2026-11-29T16:00:00Z' }
  expect(placeText({ toolbox: 'edge', ...removed })).toBe('edge, which was removed')
  expect(placeText({ toolbox: null, ...removed })).toBe('one that was removed')
})

test('a server is not at a toolbox that was removed, of which another may have the name by now', () => {
  const server = { instances: [], toolbox: 'edge' } as unknown as Server // as: only what is looked at
  expect(toolboxesOf(server)).toEqual(['edge'])
  expect(toolboxesOf({ ...server, toolbox_removed_at: '2026-11-29T16:00:00Z' })).toEqual([])
})

test('an instance that nobody hears of uses no memory as far as anybody knows', () => {
  const instances = [
    { phase: 'ready', usage: { memory_bytes: 10 } },
    { phase: 'unknown', usage: { memory_bytes: 100 } },
  ]
  // as: only what is looked at.
  expect(memoryOf({ instances } as unknown as Server)).toBe(10)
})

test('a server names each credential once of which an instance has an older secret', () => {
  // as: only what is looked at. A Toolyard of an earlier version tells nothing.
  const instances = [{ outdated_secrets: ['b', 'a'] }, { outdated_secrets: ['a'] }, {}]
  expect(outdatedSecrets({ instances } as unknown as Server)).toEqual(['a', 'b'])
  expect(outdatedSecrets({ instances: [] })).toEqual([])
})
