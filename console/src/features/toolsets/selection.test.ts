import { describe, expect, test } from 'vitest'
import { toolsOf } from '@/lib/mcp/things'
import {
  bytesOfTools,
  inOrder,
  membersOf,
  nameIssue,
  overridesOf,
  searchTurn,
  selectionOf,
  stateOf,
  toolCount,
  withOverride,
  withServer,
  withTools,
} from './selection'

describe('choosing tools', () => {
  test('all tools and chosen tools are not the same, also when they are as many', () => {
    const selection = selectionOf([{ server: 'b' }, { server: 'a', tools: ['y', 'x'] }])
    expect(stateOf(selection, 'b')).toBe('all')
    expect(stateOf(selection, 'a')).toBe('some')
    expect(stateOf(selection, 'c')).toBe('none')
    expect(membersOf(selection)).toEqual([{ server: 'a', tools: ['x', 'y'] }, { server: 'b' }])
  })

  test('a server without tools is not in it', () => {
    expect(membersOf(withTools(selectionOf([{ server: 'a', tools: ['x'] }]), 'a', []))).toEqual([])
    expect(membersOf(withServer(selectionOf([{ server: 'a', tools: ['x'] }]), 'a', 'all'))).toEqual([
      { server: 'a' },
    ])
  })

  test('tools are counted as far as servers say how many they have', () => {
    const selection = selectionOf([{ server: 'b' }, { server: 'a', tools: ['y', 'x'] }])
    expect(toolCount(selection, new Map([['b', 13]]))).toBe(15)
    expect(toolCount(selection, new Map([['b', undefined]]))).toBeUndefined()
    expect(toolCount(selectionOf([{ server: 'a', tools: ['x'] }]), new Map())).toBe(1)
    expect(toolCount(selectionOf([]), new Map())).toBe(0)
  })

  test('a tool costs a little more in a toolset, for the name of its server', () => {
    const tools = toolsOf([{ name: 'x' }, { name: 'y' }])
    const alone = tools.reduce((sum, tool) => sum + tool.bytes, 0)
    expect(bytesOfTools('ab', tools, undefined)).toBe(alone + 2 * 'ab__'.length)
    expect(bytesOfTools('ab', tools, ['x'])).toBe((tools[0]?.bytes ?? 0) + 4)
  })

  test('what is said of a tool is kept while the tool is chosen, and gone when nothing is said', () => {
    const members = [{ server: 'a', tools: ['x', 'y'], overrides: { x: { name: 'say' } } }]
    const overrides = withOverride(overridesOf(members), 'a', 'y', { description: 'Better.' })
    expect(membersOf(selectionOf(members), overrides)).toEqual([
      { server: 'a', tools: ['x', 'y'], overrides: { x: { name: 'say' }, y: { description: 'Better.' } } },
    ])
    expect(membersOf(selectionOf([{ server: 'a', tools: ['y'] }]), overridesOf(members))).toEqual([
      { server: 'a', tools: ['y'] },
    ])
    expect(
      membersOf(selectionOf(members), withOverride(overridesOf(members), 'a', 'x', { name: '' })),
    ).toEqual([{ server: 'a', tools: ['x', 'y'] }])
  })

  test('a new name fits what clients accept, and is there once', () => {
    const named = (name: string) => withOverride({ b: { z: { name: 'taken' } } }, 'a', 'x', { name })
    const issue = (name: string) => nameIssue(named(name), 'a', 'x')
    expect(issue('say-it_2')).toBeUndefined()
    for (const bad of ['a b', 'a__b', 'taken', 'x'.repeat(65)]) expect(issue(bad)).toBeTypeOf('string')
  })

  test('what was chosen at first comes first, then what can be asked, each by name', () => {
    const servers = ['a', 'b', 'c', 'd', 'e'].map((name) => ({ name }))
    const names = inOrder(servers, new Set(['e', 'b']), new Set(['b', 'd'])).map(({ name }) => name)
    expect(names).toEqual(['b', 'e', 'd', 'a', 'c'])
  })

  test('a search asks for a few lists at once, and for the next as they come', () => {
    const items = [1, 2, 3, 4, 5, 6]
    expect(searchTurn(items, () => false, 2)).toEqual({ come: [], next: [1, 2] })
    expect(searchTurn(items, (item) => item === 2, 2)).toEqual({ come: [2], next: [1, 3] })
    expect(searchTurn(items, () => true, 2)).toEqual({ come: items, next: [] })
  })

  test('a tool that is named and described anew costs what is said of it', () => {
    const [tool] = toolsOf([{ name: 'long_name', description: 'Twelve bytes' }])
    if (tool === undefined) throw new Error('one tool')
    expect(bytesOfTools('ab', [tool], undefined, { long_name: { name: 'n', description: 'Two' } })).toBe(
      tool.bytes - 'long_name'.length + 1 - 'Twelve bytes'.length + 3,
    )
  })
})
