import { describe, expect, test } from 'vitest'
import { initialOf, inputForm, problemsOf } from './schema'

const shapes = (schema: Record<string, unknown>) => {
  const { shape } = inputForm({ properties: schema })
  return shape.kind === 'object' ? shape.properties.map((one) => one.node.shape.kind) : []
}

describe('forms of input schemas', () => {
  test('each kind of value has its control, and what is not understood is JSON', () => {
    expect(
      shapes({
        a: { type: 'string', format: 'date' },
        b: { type: ['integer', 'null'] },
        c: { anyOf: [{ type: 'boolean' }, { type: 'null' }] },
        d: { enum: [1, 'two'] },
        e: { oneOf: [{ const: 'x', title: 'X' }, { const: 'y' }] },
        f: { oneOf: [{ type: 'string' }, { type: 'object', properties: { z: {} } }] },
        g: { type: 'array', items: { type: 'string' } },
        h: { type: 'array' },
        i: { type: 'object', additionalProperties: true },
        j: { const: 1 },
        k: 'nonsense',
      }),
    ).toEqual([
      'text',
      'number',
      'boolean',
      'choice',
      'choice',
      'variants',
      'list',
      'json',
      'json',
      'constant',
      'json',
    ])
  })

  test('references are followed, and one that leads to itself ends', () => {
    const form = inputForm({
      $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } } } },
      properties: { first: { $ref: '#/$defs/node' }, away: { $ref: 'https://example.test/x' } },
    })
    expect(JSON.stringify(form.shape)).toContain('"kind":"json"')
    expect(inputForm({ $ref: '#' }).shape.kind).toBe('object')
  })

  test('a form starts with the defaults, and without what nobody asked for', () => {
    const form = inputForm({
      required: ['list', 'kind'],
      properties: {
        size: { type: 'integer', default: 3 },
        name: { type: 'string' },
        list: { type: 'array', items: { type: 'string' } },
        kind: { const: 'a' },
        options: { type: 'object', properties: { deep: { type: 'string' } } },
      },
    })
    expect(initialOf(form)).toEqual({ size: 3, list: [], kind: 'a' })
  })

  test('what is wrong is said at its place', () => {
    const form = inputForm({
      required: ['name'],
      properties: {
        name: { type: 'string', minLength: 2 },
        size: { type: 'integer', maximum: 10 },
        tags: { type: 'array', items: { type: 'string' }, maxItems: 1 },
        unit: { enum: ['m', 'ft'] },
      },
    })
    expect(Object.keys(problemsOf(form, {}))).toEqual(['name'])
    expect(
      Object.keys(problemsOf(form, { name: 'a', size: 1.5, tags: ['a', 1], unit: 'mile', more: 1 })),
    ).toEqual(['name', 'size', 'tags', 'tags.1', 'unit'])
    expect(problemsOf(form, { name: 'ab', size: 10, tags: [], unit: 'm' })).toEqual({})
    expect(Object.keys(problemsOf(form, []))).toEqual([''])
  })

  test('a hostile schema ends', () => {
    let deep: Record<string, unknown> = { type: 'string' }
    for (let at = 0; at < 500; at += 1) deep = { type: 'object', properties: { a: deep } }
    expect(inputForm({ properties: { deep } }).shape.kind).toBe('object')
    const wide = Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`p${at}`, { $ref: '#' }]))
    expect(JSON.stringify(inputForm({ properties: wide })).length).toBeLessThan(5_000_000)
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`p${at}`, {}]))
    expect(inputForm({ properties: many }).shape.kind).toBe('json')
    expect(inputForm({ properties: JSON.parse('{"__proto__": {"type": "string"}}') }).shape.kind).toBe(
      'object',
    )
  })
})
