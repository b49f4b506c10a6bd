import { expect, test } from 'vitest'
import type { Server, Toolbox } from '@/api/generated/types'
import { removalOf } from './removal'

function server(
  name: string,
  more: Partial<Server> = {},
  places: string[] = ['edge2'],
  phase = 'ready',
): Server {
  const instances = places.map((toolbox) => ({ toolbox, phase }))
  return { name, enabled: true, instances, ...more } as unknown as Server // as: only what is looked at
}

function toolbox(name: string, more: Partial<Toolbox> = {}): Toolbox {
  return { name, state: 'online', draining: false, labels: {}, ...more } as Toolbox // as: only what is looked at
}

const edge2 = toolbox('edge2', { labels: { zone: 'b' } })
const nothing = {
  refused: false,
  certain: false,
  bound: [],
  failing: 0,
  moves: [],
  labelled: false,
  serves: [],
  waits: [],
}

test('before a drain, servers that must run there keep it from being removed, also stopped ones', () => {
  const servers = [
    server('bound', { toolbox: 'edge2' }),
    server('also-bound', { toolbox: 'edge2', enabled: false }, []),
  ]
  const bound = ['also-bound', 'bound']
  expect(removalOf(edge2, servers, [edge2])).toEqual({ ...nothing, refused: true, bound, failing: 1 })
  expect(removalOf({ ...edge2, draining: true }, servers, [edge2])).toEqual({ ...nothing, bound, failing: 1 })
})

test('what may run elsewhere moves where another toolbox suits it, and waits where none does', () => {
  const servers = [server('free'), server('zoned', { toolbox_labels: { zone: 'b' } })]
  const other = toolbox('edge1')
  expect(removalOf(edge2, servers, [edge2, other])).toEqual({ ...nothing, moves: ['free'], waits: ['zoned'] })
  const like = toolbox('edge3', { labels: { zone: 'b' } })
  const removal = removalOf(edge2, servers, [edge2, other, like])
  expect(removal).toMatchObject({ moves: ['free', 'zoned'], labelled: true })
  for (const useless of [
    { ...like, draining: true },
    { ...like, state: 'unreachable' as const },
  ])
    expect(removalOf(edge2, servers, [edge2, useless]).waits).toEqual(['free', 'zoned'])
})

test('what the drain says stays waits, whatever the labels of other toolboxes are', () => {
  const servers = [
    server('bound', { toolbox: 'edge2' }),
    server('moves'),
    server('needs-a-path'),
    server('on-its-way', { toolbox: 'edge1' }),
  ]
  const drain = { moving: 1, ending: 0, stays: ['bound', 'needs-a-path', 'not-listed', 'on-its-way'] }
  expect(removalOf({ ...edge2, draining: true, drain }, servers, [edge2, toolbox('edge1')])).toEqual({
    ...nothing,
    certain: true,
    bound: ['bound'],
    failing: 1,
    moves: ['moves'],
    waits: ['needs-a-path', 'not-listed'],
  })
})

test('a drain that names as many as it may leaves open whether more stay', () => {
  const stays = Array.from({ length: 100 }, (_, index) => `stays-${index}`)
  const drained = { ...edge2, draining: true, drain: { moving: 0, ending: 0, stays } }
  expect(removalOf(drained, [server('free')], [edge2, toolbox('edge1')])).toMatchObject({
    certain: false,
    moves: ['free'],
  })
})

test('what is ready elsewhere too serves on, and what only starts there still moves', () => {
  const places = ['edge1', 'edge2']
  expect(removalOf(edge2, [server('twice', {}, places)], [edge2])).toEqual({ ...nothing, serves: ['twice'] })
  const starts = server('starts', {}, places, 'starting')
  expect(removalOf(edge2, [starts], [edge2])).toEqual({ ...nothing, moves: ['starts'] })
})

test('nothing becomes of what is not there, is stopped, or was bound to another of its name', () => {
  const at = '2026-11-29T16:00:00Z'
  const servers = [
    server('elsewhere', { toolbox: 'edge1' }, ['edge1']),
    server('on-its-way', { toolbox: 'edge1' }),
    server('stopped', { enabled: false }, []),
    server('of-another', { toolbox: 'edge2', toolbox_removed_at: at }, []),
  ]
  expect(removalOf(edge2, servers, [edge2])).toEqual(nothing)
})
