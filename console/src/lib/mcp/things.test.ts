import { describe, expect, test } from 'vitest'
import { fillTemplate, promptsOf, resourcesOf, templateVariables, tokensOf, toolsOf } from './things'

describe('what a server offers', () => {
  test('a field of the wrong kind is as good as none', () => {
    expect(
      toolsOf([{ name: 7 }, { name: '' }, { name: 'a', description: {}, inputSchema: [] }]),
    ).toMatchObject([
      { name: 'a', title: undefined, description: '', inputSchema: {}, outputSchema: undefined },
    ])
    expect(resourcesOf([{ uri: 'a:b', size: -1 }, { uriTemplate: 'a:{b}' }, {}])).toMatchObject([
      { uri: 'a:b', name: 'a:b', template: false, size: undefined },
      { uri: 'a:{b}', template: true },
    ])
    expect(promptsOf([{ name: 'p', arguments: [{ name: 'x', required: 'yes' }, 3, {}] }])).toMatchObject([
      { name: 'p', arguments: [{ name: 'x', description: '', required: false }] },
    ])
  })

  test('a tool costs what a model gets to see of it', () => {
    const [plain, annotated] = toolsOf([
      { name: 'a', description: 'b' },
      { name: 'a', description: 'b', annotations: { readOnlyHint: true }, outputSchema: { type: 'object' } },
    ])
    expect(plain?.bytes).toBe(annotated?.bytes)
    expect(tokensOf(plain?.bytes ?? 0)).toBe(
      Math.ceil('{"name":"a","description":"b","input_schema":{}}'.length / 4),
    )
  })

  test('templates of URIs are filled in', () => {
    expect(templateVariables('a:/{x}{?y,z*}{/x}')).toEqual(['x', 'y', 'z'])
    expect(fillTemplate('a:/{x}{?y,z}', { x: 'b c/d', z: '1' })).toBe('a:/b%20c%2Fd?z=1')
    expect(fillTemplate('a:/{+x}{/y}', { x: 'b/c', y: 'd' })).toBe('a:/b/c/d')
  })
})
