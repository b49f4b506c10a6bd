import type { Server, UpdateServer } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'

/** Stands for "any toolbox with these labels": no toolbox can have this name. */
export const LABELLED = '*'

/** Where a server runs, as it is typed. */
export interface PlaceValues {
  /** A toolbox's name; empty for any, {@link LABELLED} for any with the labels. */
  toolbox: string
  /** One a line, as `name=value`. */
  labels: string
}

/** Where a server is to run now. */
export function placeOf(server: Pick<Server, 'toolbox' | 'toolbox_labels'>): PlaceValues {
  const labels = Object.entries(server.toolbox_labels ?? {}).map(([name, value]) => `${name}=${value}`)
  if (server.toolbox != null) return { toolbox: server.toolbox, labels: '' }
  return { toolbox: labels.length > 0 ? LABELLED : '', labels: labels.join('\n') }
}

/** What is wrong with the labels; `undefined` when nothing is, or they do not matter. */
export function placeProblem(values: PlaceValues): string | undefined {
  if (values.toolbox !== LABELLED) return undefined
  const lines = linesOf(values.labels)
  if (lines.length === 0) return t('Give at least one label')
  const bad = lines.find((line) => line.indexOf('=') < 1)
  return bad === undefined ? undefined : t('{line} is not name=value', { line: oneLine(bad, 60) })
}

/** What to send for it. */
export function placeBody(values: PlaceValues): UpdateServer {
  if (values.toolbox === '') return { any_toolbox: true }
  if (values.toolbox !== LABELLED) return { toolbox: values.toolbox }
  const pairs = linesOf(values.labels).map((line) => {
    const at = line.indexOf('=')
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()]
  })
  return { toolbox_labels: Object.fromEntries(pairs) }
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}
