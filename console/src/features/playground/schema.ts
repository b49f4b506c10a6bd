/**
 * JSON Schemas of tools as forms: which control a value gets, what it starts with, and what is wrong with it. Schemas
 * are hostile: depth and numbers are bounded, patterns are left to the server, and what this does not understand
 * is typed as JSON.
 */
import { isObject, type JsonObject } from '@/lib/mcp/client'
import { plural, t } from '@/lib/t'

/** Deeper values than this are typed as JSON. */
const DEEPEST = 6
/** More properties or choices than this are not shown as controls. */
const MOST = 200
/** More values than this in the whole form are typed as JSON: a schema that refers to itself may have any number. */
const MOST_NODES = 2000

/** What the parts of a schema share. */
interface Whole {
  root: JsonObject
  nodesLeft: number
}

/** What was typed that is no value yet: no number, or no JSON. It stands where the value would. */
export class Unparsed {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  toJSON(): string {
    return this.text
  }
}

/** One choice of a value. */
export interface Choice {
  label: string
  value: unknown
}

/** Where a value has one of several shapes: one of them. */
export interface Variant {
  label: string
  node: Node
}

/** A property of an object. */
export interface Property {
  name: string
  required: boolean
  node: Node
}

/** How a value is entered. */
export type Shape =
  | { kind: 'text'; format: string | undefined; long: boolean }
  | { kind: 'number'; whole: boolean }
  | { kind: 'boolean' }
  | { kind: 'choice'; choices: Choice[] }
  | { kind: 'constant'; value: unknown }
  | { kind: 'object'; properties: Property[] }
  | { kind: 'list'; item: Node }
  | { kind: 'variants'; variants: Variant[] }
  | { kind: 'json' }

/** A value of a form. */
export interface Node {
  title: string | undefined
  description: string
  shape: Shape
  initial: unknown
  schema: JsonObject
}

/** The form of a tool's input. A schema that is no object's is one control for JSON. */
export function inputForm(schema: JsonObject): Node {
  const root = { type: 'object', ...schema }
  return nodeOf(root, { root, nodesLeft: MOST_NODES }, 0)
}

function nodeOf(given: unknown, whole: Whole, depth: number): Node {
  whole.nodesLeft -= 1
  const schema = flattened(isObject(given) ? given : {}, whole.root)
  return {
    title: typeof schema['title'] === 'string' ? schema['title'] : undefined,
    description: typeof schema['description'] === 'string' ? schema['description'] : '',
    initial: schema['default'],
    shape: shapeOf(schema, whole, depth),
    schema,
  }
}

/** References are followed, and a shape that may also be `null` is that shape. */
function flattened(schema: JsonObject, root: JsonObject): JsonObject {
  let found = schema
  for (let step = 0; step < 8; step += 1) {
    const reference = found['$ref']
    if (typeof reference === 'string') {
      const { $ref: _, ...rest } = found
      found = { ...resolve(reference, root), ...rest }
      continue
    }
    const parts = ['allOf', 'anyOf', 'oneOf'].find((key) => Array.isArray(found[key]))
    if (parts === undefined) break
    const { [parts]: all, ...rest } = found
    const useful = (Array.isArray(all) ? all : []).filter((one) => isObject(one) && one['type'] !== 'null')
    const only = useful[0]
    if (useful.length !== 1 || !isObject(only)) break
    found = { ...only, ...rest }
  }
  return found
}

function resolve(reference: string, root: JsonObject): JsonObject {
  if (!reference.startsWith('#/')) return {}
  let at: unknown = root
  for (const part of reference.slice(2).split('/').slice(0, 20)) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
    at = isObject(at) && Object.hasOwn(at, key) ? at[key] : undefined
  }
  return isObject(at) ? at : {}
}

function shapeOf(schema: JsonObject, whole: Whole, depth: number): Shape {
  if (depth > DEEPEST || whole.nodesLeft <= 0) return { kind: 'json' }
  if (Object.hasOwn(schema, 'const')) return { kind: 'constant', value: schema['const'] }
  const choices = choicesOf(schema)
  if (choices !== undefined) return { kind: 'choice', choices }
  const variants = schema['oneOf'] ?? schema['anyOf']
  if (Array.isArray(variants) && variants.length <= MOST) {
    const nodes = variants.map((one) => nodeOf(one, whole, depth + 1))
    return { kind: 'variants', variants: nodes.map((node, at) => ({ label: variantLabel(node, at), node })) }
  }
  const type = typeOf(schema)
  switch (type) {
    case 'string':
      return { kind: 'text', format: formatOf(schema), long: isLong(schema) }
    case 'number':
    case 'integer':
      return { kind: 'number', whole: type === 'integer' }
    case 'boolean':
      return { kind: 'boolean' }
    case 'array':
      return isObject(schema['items'])
        ? { kind: 'list', item: nodeOf(schema['items'], whole, depth + 1) }
        : { kind: 'json' }
    case 'object':
      return objectShape(schema, whole, depth)
    default:
      return { kind: 'json' }
  }
}

function objectShape(schema: JsonObject, whole: Whole, depth: number): Shape {
  const properties = isObject(schema['properties']) ? Object.entries(schema['properties']) : []
  // An object of any content has no controls; without any properties at the top there is nothing to enter.
  if (properties.length > MOST || (properties.length === 0 && depth > 0)) return { kind: 'json' }
  const required = Array.isArray(schema['required']) ? schema['required'] : []
  return {
    kind: 'object',
    properties: properties.map(([name, one]) => ({
      name,
      required: required.includes(name),
      node: nodeOf(one, whole, depth + 1),
    })),
  }
}

function choicesOf(schema: JsonObject): Choice[] | undefined {
  const { enum: values, enumNames: names } = schema
  if (Array.isArray(values) && values.length > 0 && values.length <= MOST) {
    return values.map((value, at) => {
      const name: unknown = Array.isArray(names) ? names[at] : undefined
      return { label: typeof name === 'string' ? name : labelOf(value), value }
    })
  }
  const titled = schema['oneOf'] ?? schema['anyOf']
  if (!Array.isArray(titled) || titled.length === 0 || titled.length > MOST) return undefined
  if (!titled.every((one) => isObject(one) && Object.hasOwn(one, 'const'))) return undefined
  return titled.filter(isObject).map((one) => ({
    label: typeof one['title'] === 'string' ? one['title'] : labelOf(one['const']),
    value: one['const'],
  }))
}

function labelOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

function variantLabel(node: Node, at: number): string {
  return node.title ?? typeOf(node.schema) ?? t('Shape {number}', { number: at + 1 })
}

function typeOf(schema: JsonObject): string | undefined {
  const type = schema['type']
  if (typeof type === 'string') return type
  if (Array.isArray(type)) {
    const useful = type.filter((one) => one !== 'null')
    return useful.length === 1 && typeof useful[0] === 'string' ? useful[0] : undefined
  }
  if (isObject(schema['properties'])) return 'object'
  if (isObject(schema['items'])) return 'array'
  return undefined
}

function formatOf(schema: JsonObject): string | undefined {
  return typeof schema['format'] === 'string' ? schema['format'] : undefined
}

function isLong(schema: JsonObject): boolean {
  const most = schema['maxLength']
  return (
    schema['format'] === undefined &&
    ((typeof most === 'number' && most > 200) || typeof schema['contentMediaType'] === 'string')
  )
}

/** What a form starts with: the schema's defaults, and lists and objects where they must be. */
export function initialOf(node: Node): unknown {
  if (node.initial !== undefined) return node.initial
  const { shape } = node
  if (shape.kind === 'constant') return shape.value
  if (shape.kind !== 'object') return undefined
  const entries = shape.properties.flatMap(({ name, required, node: one }) => {
    const value = initialOf(one)
    if (value === undefined) return one.shape.kind === 'list' && required ? [[name, []] as const] : []
    const empty = isObject(value) && Object.keys(value).length === 0
    return !required && (empty || one.shape.kind === 'constant') ? [] : [[name, value] as const]
  })
  return Object.fromEntries(entries)
}

/** What is wrong with a value, by path such as `options.size` or `tags.0`; the path of the whole is empty. */
export function problemsOf(node: Node, value: unknown): Record<string, string> {
  const problems: Record<string, string> = {}
  check(node, value, '', problems, 0)
  return problems
}

/** The path of a part. */
export function pathTo(path: string, part: string | number): string {
  return path === '' ? String(part) : `${path}.${part}`
}

function check(node: Node, value: unknown, path: string, problems: Record<string, string>, depth: number) {
  if (depth > DEEPEST + 2) return
  const { shape, schema } = node
  const wrong = (message: string) => {
    problems[path] ??= message
  }
  if (value instanceof Unparsed) {
    wrong(shape.kind === 'number' ? t('Must be a number') : t('Is not JSON'))
    return
  }
  switch (shape.kind) {
    case 'text':
      if (typeof value !== 'string') wrong(t('Must be a text'))
      else checkLength(schema, value, wrong)
      break
    case 'number':
      if (typeof value !== 'number') wrong(t('Must be a number'))
      else checkNumber(schema, value, shape.whole, wrong)
      break
    case 'boolean':
      if (typeof value !== 'boolean') wrong(t('Must be yes or no'))
      break
    case 'choice':
      if (!shape.choices.some((one) => sameJson(one.value, value))) wrong(t('Choose one of the values'))
      break
    case 'constant':
      if (!sameJson(shape.value, value)) wrong(t('Must be {value}', { value: labelOf(shape.value) }))
      break
    case 'list':
      if (!Array.isArray(value)) wrong(t('Must be a list'))
      else {
        const [least, most] = [schema['minItems'], schema['maxItems']]
        if (typeof least === 'number' && value.length < least)
          wrong(plural(least, 'At least {count} item', 'At least {count} items'))
        if (typeof most === 'number' && value.length > most)
          wrong(plural(most, 'At most {count} item', 'At most {count} items'))
        for (const [at, one] of value.slice(0, 1000).entries())
          check(shape.item, one, pathTo(path, at), problems, depth + 1)
      }
      break
    case 'object':
      if (!isObject(value)) wrong(t('Must be an object'))
      else {
        for (const { name, required, node: one } of shape.properties) {
          const part = Object.hasOwn(value, name) ? value[name] : undefined
          if (part !== undefined) check(one, part, pathTo(path, name), problems, depth + 1)
          else if (required) problems[pathTo(path, name)] ??= t('Needs a value')
        }
      }
      break
    case 'variants':
    case 'json':
      if (value === undefined) wrong(t('Needs a value'))
  }
}

function checkLength(schema: JsonObject, value: string, wrong: (message: string) => void) {
  const [least, most] = [schema['minLength'], schema['maxLength']]
  const length = [...value].length
  if (typeof least === 'number' && length < least)
    wrong(plural(least, 'At least {count} character', 'At least {count} characters'))
  if (typeof most === 'number' && length > most)
    wrong(plural(most, 'At most {count} character', 'At most {count} characters'))
}

function checkNumber(schema: JsonObject, value: number, whole: boolean, wrong: (message: string) => void) {
  if (whole && !Number.isInteger(value)) wrong(t('Must be a whole number'))
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema
  if (typeof minimum === 'number' && value < minimum) wrong(t('At least {value}', { value: minimum }))
  if (typeof maximum === 'number' && value > maximum) wrong(t('At most {value}', { value: maximum }))
  if (typeof exclusiveMinimum === 'number' && value <= exclusiveMinimum)
    wrong(t('More than {value}', { value: exclusiveMinimum }))
  if (typeof exclusiveMaximum === 'number' && value >= exclusiveMaximum)
    wrong(t('Less than {value}', { value: exclusiveMaximum }))
}

/** Whether two JSON values are the same. */
export function sameJson(one: unknown, other: unknown): boolean {
  return Object.is(one, other) || JSON.stringify(one) === JSON.stringify(other)
}

/** The limits of a value in words: `1 to 10`, `at most 200 characters`; empty without any. */
export function limitsText(node: Node): string {
  const { minimum, maximum, minLength, maxLength } = node.schema
  if (typeof minimum === 'number' && typeof maximum === 'number')
    return t('{least} to {most}', { least: minimum, most: maximum })
  if (typeof minimum === 'number') return t('at least {value}', { value: minimum })
  if (typeof maximum === 'number') return t('at most {value}', { value: maximum })
  if (typeof minLength === 'number' && minLength > 1)
    return plural(minLength, 'at least {count} character', 'at least {count} characters')
  if (typeof maxLength === 'number')
    return plural(maxLength, 'at most {count} character', 'at most {count} characters')
  return ''
}
