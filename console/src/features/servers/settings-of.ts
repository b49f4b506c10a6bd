/** The settings form's values for a server that exists, read back from its revision. Pure. */
import type { RevisionSpec } from '@/api/generated/types'
import type { InputField, Offer } from './public/inputs'
import { newSettings, type SettingsValues } from './public/settings'
import { type Piece, piecesOf } from './spec-text'

/**
 * What the form shows at first. What the revision does not say stays empty, which means "as it is": values that became
 * part of an argument or an address, and arguments after the entry's own.
 */
export function settingsOf(
  spec: RevisionSpec,
  fields: readonly InputField[],
  offer: Offer | undefined,
  credentialName: (id: string) => string | undefined,
): SettingsValues {
  const values = newSettings([])
  for (const field of fields) values.inputs[field.key] = ''
  const declared = new Set((offer?.package?.environmentVariables ?? []).map((one) => one.name ?? ''))
  for (const [name, value] of Object.entries(environmentOf(spec))) {
    const given = wholeOf(value)
    if (given === undefined) continue
    const credential =
      'credential' in given ? (credentialName(given.credential) ?? given.credential) : undefined
    const text = 'text' in given ? given.text : ''
    if (declared.has(name)) {
      const field = fields.find((one) => one.key === name && one.origin === 'environment')
      if (field === undefined) continue
      if (credential !== undefined) values.bound[name] = credential
      else values.inputs[name] = text
    } else values.environment.push({ id: `set-${name}`, name, value: text, credential })
  }
  values.paths = (spec.paths ?? []).map((path) => ({
    id: `set-${path.path}`,
    path: path.path,
    writable: path.writable === true,
  }))
  if (spec.limits !== undefined) {
    values.memory = trimmed(spec.limits.memory_bytes / (1024 * 1024))
    values.processes = String(spec.limits.processes)
    values.cpu = spec.limits.cpu_millis ? String(spec.limits.cpu_millis) : ''
  }
  if (spec.strategy !== undefined) values.strategy = spec.strategy
  if (spec.start_timeout_ms !== undefined) values.startTimeout = trimmed(spec.start_timeout_ms / 1000)
  if (spec.call_timeout_ms !== undefined) values.callTimeout = trimmed(spec.call_timeout_ms / 1000)
  return values
}

/** The whole environment of a package, by name. */
export function environmentOf(spec: RevisionSpec): Record<string, unknown> {
  const { runtime } = spec
  if (!('environment' in runtime) || typeof runtime.environment !== 'object' || runtime.environment === null)
    return {}
  return { ...runtime.environment }
}

/** The command line of a package, argument by argument. */
export function argumentsOf(spec: RevisionSpec): unknown[] {
  const { runtime } = spec
  return 'arguments' in runtime && Array.isArray(runtime.arguments) ? runtime.arguments : []
}

/** A value that is one text or one credential; an empty list of pieces is an empty text. */
function wholeOf(value: unknown): Piece | undefined {
  if (Array.isArray(value) && value.length === 0) return { text: '' }
  const pieces = piecesOf(value)
  return pieces?.length === 1 ? pieces[0] : undefined
}

function trimmed(value: number): string {
  return String(Math.round(value * 1000) / 1000)
}
