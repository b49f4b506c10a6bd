import type { CreateServer, Server, UpdateServer } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { pairsOf } from '../labels'

/** Stands for "any toolbox with these labels": no toolbox can have this name. */
export const LABELLED = '*'

/** Stands for the toolbox where a server must run, and which was removed: it is none to choose. */
export const REMOVED = '#'

/** Where a server runs, as it is typed. */
export interface PlaceValues {
  /** A toolbox's name; empty for any, {@link LABELLED} for any with the labels, {@link REMOVED} for one that is gone. */
  toolbox: string
  /** One a line, as `name=value`. */
  labels: string
}

/** Where a server is to run now. */
export function placeOf(
  server: Pick<Server, 'toolbox' | 'toolbox_labels' | 'toolbox_removed_at'>,
): PlaceValues {
  if (server.toolbox_removed_at != null) return { toolbox: REMOVED, labels: '' }
  const labels = Object.entries(server.toolbox_labels ?? {}).map(([name, value]) => `${name}=${value}`)
  if (server.toolbox != null) return { toolbox: server.toolbox, labels: '' }
  return { toolbox: labels.length > 0 ? LABELLED : '', labels: labels.join('\n') }
}

/** What is wrong with the labels; `undefined` when nothing is, or they do not matter. */
export function placeProblem(values: PlaceValues): string | undefined {
  if (values.toolbox !== LABELLED) return undefined
  const pairs = pairsOf(values.labels, '\n')
  if (pairs.length === 0) return t('Give at least one label')
  const bad = pairs.find(({ key }) => key === undefined || key === '')
  return bad === undefined ? undefined : t('{line} is not name=value', { line: oneLine(bad.text, 60) })
}

/** What to send for it with a new server: nothing where Toolyard chooses. */
export function placeBody(values: PlaceValues): Pick<CreateServer, 'toolbox' | 'toolbox_labels'> {
  if (values.toolbox === '' || values.toolbox === REMOVED) return {}
  if (values.toolbox !== LABELLED) return { toolbox: values.toolbox }
  const pairs = pairsOf(values.labels, '\n').map(({ key, value }) => [key ?? '', value] as const)
  return { toolbox_labels: Object.fromEntries(pairs) }
}

/** What to send for it with a server that runs somewhere already. */
export function moveBody(values: PlaceValues): UpdateServer {
  return values.toolbox === '' ? { any_toolbox: true } : placeBody(values)
}
