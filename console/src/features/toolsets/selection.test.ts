import { describe, expect, test } from 'vitest'
import { toolsOf } from '@/lib/mcp/things'
import { bytesOfTools, membersOf, selectionOf, stateOf, withServer, withTools } from './selection'

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

  test('a tool costs a little more in a toolset, for the name of its server', () => {
    const tools = toolsOf([{ name: 'x' }, { name: 'y' }])
    const alone = tools.reduce((sum, tool) => sum + tool.bytes, 0)
    expect(bytesOfTools('ab', tools, undefined)).toBe(alone + 2 * 'ab__'.length)
    expect(bytesOfTools('ab', tools, ['x'])).toBe((tools[0]?.bytes ?? 0) + 4)
  })
})
