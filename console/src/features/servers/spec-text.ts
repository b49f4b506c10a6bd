/**
 * A revision's spec as lines that people read and that compare well: one fact a line, always in the same order.
 * Secrets are never in a spec; a credential stands where its value would be. Pure.
 */
import type { RevisionSpec } from '@/api/generated/types'
import { formatBytes, formatDuration } from '@/lib/format'
import { t } from '@/lib/t'

/** The text of a spec. `credentialName` gives the name of a credential's id, when it is known. */
export function specText(
  spec: RevisionSpec,
  credentialName: (id: string) => string | undefined = () => undefined,
): string {
  const lines: string[] = []
  const add = (name: string, value: string) => lines.push(`${name}: ${value}`)
  if (spec.entry != null) {
    add('entry', spec.entry.name)
    add('entry version', spec.entry.version)
  }
  facts('', spec.runtime, add, (id) => credentialName(id))
  if (spec.limits !== undefined) {
    add('memory limit', formatBytes(spec.limits.memory_bytes))
    add('process limit', String(spec.limits.processes))
    add(
      'processor limit',
      spec.limits.cpu_millis === undefined || spec.limits.cpu_millis === 0
        ? t('none')
        : t('{count} thousandths of a core', { count: spec.limits.cpu_millis }),
    )
  }
  if (spec.limits?.disk_bytes !== undefined)
    add('disk limit', spec.limits.disk_bytes === 0 ? t('none') : formatBytes(spec.limits.disk_bytes))
  for (const privilege of spec.privileges ?? []) add('privilege', privilege)
  for (const path of spec.paths ?? [])
    add('path', `${path.path}${path.writable ? ` (${t('writable')})` : ''}`)
  for (const volume of spec.volumes ?? []) add('volume', `${volume.name} (${volume.path})`)
  if ('egress' in spec) facts('egress', spec.egress, add, credentialName)
  if (spec.strategy !== undefined) add('strategy', spec.strategy)
  if (spec.start_timeout_ms !== undefined) add('start timeout', formatDuration(spec.start_timeout_ms))
  if (spec.call_timeout_ms !== undefined) add('call timeout', formatDuration(spec.call_timeout_ms))
  if (spec.probe_call != null)
    add('probe call', `${spec.probe_call.tool} ${JSON.stringify(spec.probe_call.arguments ?? {})}`)
  return lines.join('\n')
}

/** Any JSON as facts: `environment.TZ: UTC`. What has no value is left out. */
function facts(
  name: string,
  value: unknown,
  add: (name: string, value: string) => void,
  credentialName: (id: string) => string | undefined,
): void {
  if (value === null || value === undefined) return
  const text = valueText(value, credentialName)
  if (text !== undefined) {
    add(name, text)
    return
  }
  if (Array.isArray(value)) {
    for (const [at, one] of value.entries()) facts(`${name} ${at + 1}`, one, add, credentialName)
    return
  }
  for (const [key, one] of Object.entries(value))
    facts(name === '' ? key : `${name}.${key}`, one, add, credentialName)
}

/**
 * A text, a number or a truth value as text; also a value with credentials in it (`Value` in crates/types/src/spec.rs):
 * a list of pieces, each a text or the id of a credential.
 */
export function valueText(
  value: unknown,
  credentialName: (id: string) => string | undefined = () => undefined,
): string | undefined {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return String(value)
  const pieces = piecesOf(value)
  return pieces
    ?.map((piece) =>
      'text' in piece
        ? piece.text
        : `[${t('credential {name}', { name: credentialName(piece.credential) ?? piece.credential })}]`,
    )
    .join('')
}

/** A piece of a value with credentials in it. */
export type Piece = { text: string } | { credential: string }

/** The pieces of a value with credentials in it; `undefined` when it is none. */
export function piecesOf(value: unknown): Piece[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined
  const pieces: Piece[] = []
  for (const one of value) {
    if (typeof one !== 'object' || one === null) return undefined
    if ('text' in one && typeof one.text === 'string') pieces.push({ text: one.text })
    else if ('credential' in one && typeof one.credential === 'string')
      pieces.push({ credential: one.credential })
    else return undefined
  }
  return pieces
}
