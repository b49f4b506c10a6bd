/**
 * What a catalog entry asks for, by the server's own rules (crates/control/src/app/expand.rs): which of its packages
 * and addresses can run, and which inputs those have. Pure.
 */
import type { Argument, Input, KeyValueInput, Package, ServerJson, Transport } from '@/api/generated/types'
import { LONGEST_NAME } from '@/lib/name'
import { t } from '@/lib/t'

/** One way in which an entry can run. */
export interface Offer {
  /** `npm`, `pypi`, `oci`, `remote`, or what Toolyard does not run. */
  kind: string
  package?: Package
  remote?: Transport
  /** Whether Toolyard can run it, and takes this one of its kind. */
  runs: boolean
  /** Why not. */
  why: string
}

/** Where the value of an input goes. */
export type InputOrigin = 'environment' | 'argument' | 'header' | 'address' | 'variable'

/** One thing that a person can give. */
export interface InputField {
  /** Its name in `inputs`. */
  key: string
  origin: InputOrigin
  description: string
  required: boolean
  secret: boolean
  /** `string`, `number`, `boolean` or `filepath`. */
  format: string
  choices: readonly string[]
  /** The value that it has when nothing is given. */
  initial: string
  /** A path of the host that the entry suggests: it has it only once a person gave it. */
  suggestion: string
  placeholder: string
  /** Takes several values, one a line. */
  repeated: boolean
  /** The text that it becomes a part of, such as `Bearer {token}`. */
  template: string | undefined
}

/** The order in which the server chooses when nothing is said. */
const ORDER = ['npm', 'pypi', 'oci', 'remote']

/** Whether it speaks HTTP in a container: taken when there is none of its kind over stdio, and after an address. */
function isOverHttp(one: Package): boolean {
  return one.transport?.type === 'streamable-http'
}

function isStdio(one: Package): boolean {
  const transport = one.transport?.type ?? ''
  return transport === '' || transport === 'stdio'
}

/** Every way in which a document can run, those first that can run here. */
export function offers(document: ServerJson): Offer[] {
  const taken = new Set<string>()
  const all: Offer[] = []
  const packages = document.packages ?? []
  for (const one of packages) {
    const kind = one.registryType ?? ''
    const known = kind === 'npm' || kind === 'pypi' || kind === 'oci'
    const stdio = isStdio(one)
    const http =
      known && isOverHttp(one) && !packages.some((other) => other.registryType === kind && isStdio(other))
    let why = ''
    if (!known) why = t('Toolyard does not run this kind yet')
    else if (!stdio && !http) why = t('Toolyard runs packages over stdio and over Streamable HTTP')
    else if (taken.has(kind)) why = t('Toolyard takes the first one of a kind')
    if (why === '') taken.add(kind)
    all.push({ kind, package: one, runs: why === '', why })
  }
  const remotes = document.remotes ?? []
  const best = remotes.find((one) => one.type === 'streamable-http') ?? remotes[0]
  for (const one of remotes) {
    const runs = one === best
    all.push({
      kind: 'remote',
      remote: one,
      runs,
      why: runs ? '' : t('Toolyard takes the best address'),
    })
  }
  const place = (offer: Offer) => {
    if (!offer.runs) return ORDER.length * 2
    const late = offer.package !== undefined && isOverHttp(offer.package)
    return ORDER.indexOf(offer.kind) + (late ? ORDER.length : 0)
  }
  return all.toSorted((one, other) => place(one) - place(other))
}

/** The inputs of an offer: the required ones first, else in the document's order. */
export function declaredInputs(offer: Offer): InputField[] {
  const fields = new Map<string, InputField>()
  const declare = (
    key: string,
    input: Input | Argument,
    origin: InputOrigin,
    template: string | undefined,
    required: boolean,
  ) => {
    const fixed = input.value !== null && input.value !== undefined
    if (!fixed && key !== '' && !fields.has(key))
      fields.set(key, field(key, input, origin, template, required, offer.kind))
    for (const [name, variable] of Object.entries(input.variables ?? {})) {
      declare(
        name,
        variable,
        origin === 'environment' || origin === 'argument' || origin === 'header' ? 'variable' : origin,
        input.value ?? template,
        variable.isRequired === true,
      )
    }
  }
  const pair = (one: KeyValueInput, origin: InputOrigin) =>
    declare(one.name ?? '', one, origin, undefined, one.isRequired === true)
  if (offer.package !== undefined) {
    for (const one of offer.package.environmentVariables ?? []) pair(one, 'environment')
    const { runtimeArguments = [], packageArguments = [] } = offer.package
    for (const one of [...runtimeArguments, ...packageArguments])
      declare(argumentKey(one), one, 'argument', undefined, one.isRequired === true)
    const { transport } = offer.package
    for (const one of transport?.headers ?? []) pair(one, 'header')
    for (const [name, input] of Object.entries(transport?.variables ?? {}))
      declare(name, input, 'address', transport?.url ?? undefined, input.isRequired === true)
  }
  if (offer.remote !== undefined) {
    for (const one of offer.remote.headers ?? []) pair(one, 'header')
    // An address is not whole without its variables.
    for (const [name, input] of Object.entries(offer.remote.variables ?? {}))
      declare(name, input, 'address', offer.remote.url ?? undefined, true)
  }
  const rank = (one: InputField) => (one.required ? 0 : 1)
  return [...fields.values()].toSorted((one, other) => rank(one) - rank(other))
}

function field(
  key: string,
  input: Input | Argument,
  origin: InputOrigin,
  template: string | undefined,
  required: boolean,
  kind: string,
): InputField {
  const given = input.default ?? ''
  // In an image it may well be a path of the image, and is none of the host.
  const suggests = input.format === 'filepath' && given.startsWith('/') && kind !== 'oci'
  return {
    key,
    origin,
    description: input.description ?? '',
    required,
    secret: input.isSecret === true,
    format: input.format ?? 'string',
    choices: input.choices ?? [],
    initial: suggests ? '' : given,
    suggestion: suggests ? given : '',
    placeholder: input.placeholder ?? '',
    repeated: 'isRepeated' in input && input.isRepeated === true,
    template,
  }
}

function argumentKey(argument: Argument): string {
  const name = argument.type === 'named' ? argument.name : argument.valueHint
  return (name ?? argument.valueHint ?? '').replace(/=+$/, '')
}

/** What is wrong with a value that was given; `undefined` when nothing is. */
export function inputIssue(field: InputField, value: string): string | undefined {
  if (value.includes('\0')) return t('It must not hold a NUL character')
  if (field.choices.length > 0)
    return field.choices.includes(value) ? undefined : t('It is none of the choices')
  if (field.format === 'number' && !(value.trim() !== '' && Number.isFinite(Number(value))))
    return t('It is not a number')
  if (field.format === 'boolean' && value !== 'true' && value !== 'false')
    return t('It must be true or false')
  if (field.format === 'filepath' && !value.startsWith('/'))
    return t('Give the whole path on the toolbox’s host, such as /srv/data')
  return undefined
}

/** A name made of any text: lower-case letters, digits and single dashes. */
export function nameFrom(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, LONGEST_NAME)
    .replace(/^-+|-+$/g, '')
}

/** The name, or with a number behind it when it is taken. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number += 1) {
    const ending = number === 1 ? '' : `-${number}`
    const one = `${name.slice(0, LONGEST_NAME - ending.length).replace(/-+$/, '')}${ending}`
    if (!taken.has(one)) return one
  }
}
