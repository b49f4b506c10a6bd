// Writes src/api/generated from ../openapi/public.json: per tag one module with the types, the valibot schemas of
// answers, and the operations. `--check` writes nothing and fails when the committed files differ.
//
// What it does deliberately:
// - A schema that only one tag uses lives in that tag's module, so that a page loads no other page's schemas.
// - Types are imported from `types`, lists of enums' values from `enums`, operations from their tag's module: these
//   places do not change when the API grows.
// - Enums are closed for the type checker and open at run time: a newer server may name a state that this build does
//   not know, and that must show as text instead of failing the whole answer.
// - Bodies of requests become types only; the server is the one who validates them.
// It has no dependency, and runs on the Node that builds the console (docs/decisions/0005-console.md).
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const source = join(here, '../../openapi/public.json')
const target = join(here, '../src/api/generated')
const METHODS = ['get', 'post', 'put', 'patch', 'delete']
const SHARED = 'shared'
const ENUMS = 'enums'
const TYPES = 'types'

const document = JSON.parse(await readFile(source, 'utf8'))
const schemas = document.components.schemas

const pascal = (text) => text.replace(/(^|[_-])([A-Za-z0-9])/g, (_, __, letter) => letter.toUpperCase())
const camel = (text) => pascal(text).replace(/^[A-Z]/, (letter) => letter.toLowerCase())
const constant = (name) => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
const typeName = (name) => pascal(name)
const schemaName = (name) => `${typeName(name)}Schema`
const refName = (ref) => ref.slice('#/components/schemas/'.length)
const quote = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
const key = (name) => (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : quote(name))

// A page repeats its items' schema in place; the name says which one it is.
for (const [name, schema] of Object.entries(schemas)) {
  const item = name.startsWith('Page_') ? name.slice('Page_'.length) : undefined
  if (item !== undefined && schemas[item])
    schema.properties.items.items = { $ref: `#/components/schemas/${item}` }
}

function refsIn(value, found = new Set()) {
  if (Array.isArray(value)) for (const part of value) refsIn(part, found)
  else if (value !== null && typeof value === 'object') {
    if (typeof value.$ref === 'string') found.add(refName(value.$ref))
    for (const part of Object.values(value)) refsIn(part, found)
  }
  return found
}

const missing = [...refsIn(document)].filter((name) => schemas[name] === undefined)
if (missing.length > 0) {
  console.error(`openapi/public.json refers to schemas that it does not have: ${missing.join(', ')}`)
  process.exit(1)
}

const operations = []
for (const [path, methods] of Object.entries(document.paths)) {
  for (const method of METHODS) {
    if (methods[method])
      operations.push({ path, method, tag: methods[method].tags[0], spec: methods[method] })
  }
}

function answerOf(spec) {
  const answers = Object.entries(spec.responses).filter(([status]) => status.startsWith('2'))
  const content = answers.map(([, answer]) => answer.content).find((one) => one !== undefined)
  if (content === undefined) return { kind: 'nothing' }
  const json = content['application/json']
  return json ? { kind: 'json', schema: json.schema } : { kind: 'stream' }
}
const bodyOf = (spec) => spec.requestBody?.content?.['application/json']?.schema

/** Which tags reach a schema, and whether an answer does. */
const reach = new Map()
const answered = new Set()
function visit(name, tag, inAnswer) {
  const tags = reach.get(name) ?? new Set()
  const known = tags.has(tag) && (!inAnswer || answered.has(name))
  tags.add(tag)
  reach.set(name, tags)
  if (inAnswer) answered.add(name)
  if (!known) for (const next of refsIn(schemas[name])) visit(next, tag, inAnswer)
}
for (const { tag, spec } of operations) {
  const answer = answerOf(spec)
  // The lines of a stream are validated too: by the module that reads them.
  const streamed = Object.entries(spec.responses).flatMap(([status, one]) =>
    status.startsWith('2') ? Object.values(one.content ?? {}).map((media) => media.schema) : [],
  )
  for (const name of refsIn(answer.schema ?? streamed)) visit(name, tag, true)
  for (const name of refsIn(bodyOf(spec) ?? {})) visit(name, tag, false)
  for (const name of refsIn(spec.parameters ?? [])) visit(name, tag, false)
}
visit('Problem', SHARED, true)
const isEnum = (name) => (schemas[name].enum?.length ?? 0) > 1
const moduleOf = (name) => {
  if (isEnum(name)) return ENUMS
  const tags = [...(reach.get(name) ?? [])]
  return tags.length === 1 ? tags[0] : SHARED
}

function describe(text, indent = '') {
  if (!text) return ''
  const lines = text
    .replaceAll('*/', '* /')
    .split('\n')
    .map((line) => line.trimEnd())
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`
  return `${indent}/**\n${lines.map((line) => `${indent} *${line ? ` ${line}` : ''}`).join('\n')}\n${indent} */\n`
}

/** `null` in a union or a type list, taken out. */
function withoutNull(schema) {
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== 'null')
    if (types.length < schema.type.length) return { nullable: true, schema: { ...schema, type: types[0] } }
  }
  const options = schema.oneOf ?? schema.anyOf
  if (options) {
    const rest = options.filter((one) => one.type !== 'null')
    if (rest.length < options.length)
      return { nullable: true, schema: rest.length === 1 ? rest[0] : { oneOf: rest } }
  }
  return { nullable: false, schema }
}

/** The properties of an object or of an `allOf` of objects; `undefined` when it is something else. */
function propertiesOf(schema) {
  if (schema.$ref) return propertiesOf(schemas[refName(schema.$ref)])
  if (schema.allOf) {
    const parts = schema.allOf.map(propertiesOf)
    if (parts.some((part) => part === undefined)) return undefined
    return {
      properties: Object.assign({}, ...parts.map((part) => part.properties)),
      required: parts.flatMap((part) => part.required),
    }
  }
  return schema.properties ? { properties: schema.properties, required: schema.required ?? [] } : undefined
}

function typeOf(schema, indent = '') {
  if (schema === undefined || schema === true) return 'unknown'
  const { nullable, schema: inner } = withoutNull(schema)
  if (nullable) return `${typeOf(inner, indent)} | null`
  if (schema.$ref) return typeName(refName(schema.$ref))
  if (schema.enum) return schema.enum.map(quote).join(' | ')
  if (schema.oneOf || schema.anyOf)
    return (schema.oneOf ?? schema.anyOf).map((one) => typeOf(one, indent)).join(' | ')
  const object = propertiesOf(schema)
  if (object) return objectType(object, indent)
  switch (schema.type) {
    case 'string':
      return 'string'
    case 'integer':
    case 'number':
      return 'number'
    case 'boolean':
      return 'boolean'
    case 'null':
      return 'null'
    case 'array': {
      const item = typeOf(schema.items, indent)
      return /[|{ ]/.test(item) ? `Array<${item}>` : `${item}[]`
    }
    case 'object':
      return `Record<string, ${typeOf(emptyIsAnything(schema.additionalProperties), indent)}>`
    default:
      return 'unknown'
  }
}
const emptyIsAnything = (schema) =>
  schema === undefined || schema === true || Object.keys(schema).length === 0 ? undefined : schema

function objectType({ properties, required }, indent) {
  const lines = Object.entries(properties).map(([name, schema]) => {
    const optional = required.includes(name) ? '' : '?'
    return `${describe(schema.description, `${indent}  `)}${indent}  ${key(name)}${optional}: ${typeOf(schema, `${indent}  `)}`
  })
  return `{\n${lines.join('\n')}\n${indent}}`
}

/** The valibot expression of a schema; `ready` has the names that are already declared in this module or elsewhere. */
function validatorOf(schema, ready, indent = '') {
  schema = emptyIsAnything(schema)
  if (schema === undefined) return 'v.unknown()'
  const { nullable, schema: inner } = withoutNull(schema)
  if (nullable) return `v.nullable(${validatorOf(inner, ready, indent)})`
  if (schema.$ref) {
    const name = refName(schema.$ref)
    return ready.has(name) ? schemaName(name) : `v.lazy(() => ${schemaName(name)})`
  }
  if (schema.enum?.length === 1) return `v.literal(${quote(schema.enum[0])})`
  if (schema.enum) return `v.custom<${schema.enum.map(quote).join(' | ')}>(isString)`
  if (schema.oneOf || schema.anyOf) {
    return `v.union([${(schema.oneOf ?? schema.anyOf).map((one) => validatorOf(one, ready, indent)).join(', ')}])`
  }
  const object = propertiesOf(schema)
  if (object) {
    const lines = Object.entries(object.properties).map(([name, part]) => {
      const one = validatorOf(part, ready, `${indent}  `)
      const optional = object.required.includes(name)
        ? one
        : one.startsWith('v.nullable(')
          ? `v.nullish(${one.slice(11)}`
          : `v.optional(${one})`
      return `${indent}  ${key(name)}: ${optional},`
    })
    return `v.object({\n${lines.join('\n')}\n${indent}})`
  }
  switch (schema.type) {
    case 'string':
      return 'v.string()'
    case 'integer':
    case 'number':
      return 'v.number()'
    case 'boolean':
      return 'v.boolean()'
    case 'null':
      return 'v.null()'
    case 'array':
      return `v.array(${validatorOf(schema.items, ready, indent)})`
    case 'object':
      return `v.record(v.string(), ${validatorOf(schema.additionalProperties, ready, indent)})`
    default:
      return 'v.unknown()'
  }
}

/** Names in an order in which each comes after what it needs, where there is no cycle. */
function ordered(names) {
  const done = []
  const open = new Set()
  const place = (name) => {
    if (done.includes(name) || open.has(name) || !names.includes(name)) return
    open.add(name)
    for (const next of [...refsIn(schemas[name])].sort()) place(next)
    done.push(name)
  }
  for (const name of [...names].sort()) place(name)
  return done
}

function declare(name, ready) {
  const schema = schemas[name]
  const type = typeName(name)
  let text = describe(schema.description)
  if (schema.enum && schema.enum.length > 1) {
    text += `export type ${type} = (typeof ${constant(type)})[number]\n`
    text += `export const ${constant(type)} = [${schema.enum.map(quote).join(', ')}] as const\n`
    if (answered.has(name))
      text += `export const ${schemaName(name)}: v.GenericSchema<unknown, ${type}> = v.custom<${type}>(isString)\n`
    return text
  }
  const object = withoutNull(schema).nullable ? undefined : propertiesOf(schema)
  text +=
    object && !schema.oneOf
      ? `export interface ${type} ${objectType(object, '')}\n`
      : `export type ${type} = ${typeOf(schema)}\n`
  if (answered.has(name))
    text += `export const ${schemaName(name)}: v.GenericSchema<unknown, ${type}> = ${validatorOf(schema, ready)}\n`
  return text
}

function declareOperation({ path, method, spec }) {
  const name = camel(spec.operationId)
  const parameters = spec.parameters ?? []
  const group = (place) => {
    const found = parameters.filter((one) => one.in === place)
    if (found.length === 0) return undefined
    const properties = Object.fromEntries(
      found.map((one) => [one.name, { ...one.schema, description: one.description }]),
    )
    return typeOf({ properties, required: found.filter((one) => one.required).map((one) => one.name) })
  }
  const body = bodyOf(spec)
  const fields = [
    `path: ${group('path') ?? 'undefined'}`,
    `query: ${group('query') ?? 'undefined'}`,
    `body: ${body ? typeOf(body) : 'undefined'}`,
  ]
  const answer = answerOf(spec)
  const answerType = { nothing: 'undefined', stream: 'Response' }[answer.kind] ?? typeOf(answer.schema)
  const validator =
    answer.kind === 'json' ? validatorOf(answer.schema, new Set(Object.keys(schemas))) : 'undefined'
  const action = spec['x-toolyard-action']
  const text = [spec.summary, action ? `\nNeeds: \`${action}\`.` : ''].join('')
  return (
    `${describe(text)}export const ${name}: Operation<{ ${fields.join('; ')} }, ${answerType}> = /* @__PURE__ */ operation(\n` +
    `  ${quote(spec.operationId)}, ${quote(method.toUpperCase())}, ${quote(path)}, ${quote(answer.kind)}, ${answer.kind === 'json' ? validator : 'undefined'},\n)\n`
  )
}

function writeModule(module) {
  const names = ordered([...reach.keys()].filter((name) => moduleOf(name) === module))
  const ready = new Set([...reach.keys()].filter((name) => moduleOf(name) !== module))
  const own = operations.filter((one) => one.tag === module)
  const body = []
  for (const name of names) {
    body.push(declare(name, ready))
    ready.add(name)
  }
  for (const one of own) body.push(declareOperation(one))
  const text = body.join('\n')
  const imports = new Map()
  for (const name of reach.keys()) {
    const from = moduleOf(name)
    if (from === module) continue
    for (const [used, isType] of [
      [typeName(name), true],
      [schemaName(name), false],
    ]) {
      if (new RegExp(`\\b${used}\\b`).test(text.replace(/\/\*\*[\s\S]*?\*\//g, ''))) {
        imports.set(from, [...(imports.get(from) ?? []), isType ? `type ${used}` : used])
      }
    }
  }
  const head = ['// Generated from openapi/public.json by `npm run generate`: do not edit.']
  if (/\bv\./.test(text)) head.push(`import * as v from 'valibot'`)
  if (own.length > 0) head.push(`import { type Operation, operation } from '../operation'`)
  if (/isString/.test(text)) head.push(`import { isString } from '../open-enum'`)
  for (const [from, what] of [...imports].sort())
    head.push(`import { ${what.sort().join(', ')} } from './${from}'`)
  return `${head.join('\n')}\n\n${text}`
}

/** Every type by its name alone: which module has it changes as the API grows. Types only, so nothing is loaded. */
function writeTypes() {
  const byModule = new Map()
  for (const name of [...reach.keys()].sort()) {
    byModule.set(moduleOf(name), [...(byModule.get(moduleOf(name)) ?? []), typeName(name)])
  }
  const lines = [...byModule]
    .sort()
    .map(
      ([module, names]) =>
        `export type {\n${names.map((name) => `  ${name},\n`).join('')}} from './${module}'`,
    )
  return `// Generated from openapi/public.json by \`npm run generate\`: do not edit.\n${lines.join('\n')}\n`
}

const files = new Map()
for (const module of new Set([...operations.map((one) => one.tag), SHARED, ENUMS]))
  files.set(`${module}.ts`, writeModule(module))
files.set(`${TYPES}.ts`, writeTypes())

const present = await readdir(target).catch(() => [])
if (process.argv.includes('--check')) {
  const stale = present.filter((name) => !files.has(name))
  for (const [name, text] of files) {
    if ((await readFile(join(target, name), 'utf8').catch(() => '')) !== text) stale.push(name)
  }
  if (stale.length > 0) {
    console.error(
      `src/api/generated is not what openapi/public.json says: ${stale.join(', ')}; run \`npm run generate\``,
    )
    process.exit(1)
  }
} else {
  await mkdir(target, { recursive: true })
  for (const name of present) if (!files.has(name)) await rm(join(target, name))
  for (const [name, text] of files) await writeFile(join(target, name), text)
  console.log(`${files.size} modules, ${operations.length} operations, ${reach.size} schemas`)
}
