/** What the removal of a toolbox means for its servers, as far as that can be told before. Pure. */
import type { Server, Toolbox } from '@/api/generated/types'

/** What becomes of its servers, each by name and in their order. */
export interface Removal {
  /** Whether it is refused, because servers must run there and it is not drained. */
  refused: boolean
  /** Whether the API said which servers stay: else `moves` are those that another toolbox takes by its labels alone. */
  certain: boolean
  /** Those that must run there: they run nowhere then, until they are moved. */
  bound: string[]
  /** How many of them are meant to run: those fail. */
  failing: number
  /** Those that run there and that another toolbox may take. */
  moves: string[]
  /** Whether one of those asks for labels. */
  labelled: boolean
  /** Those of which another instance is ready elsewhere: that serves on. */
  serves: string[]
  /** Those that run there and that none takes now: they wait for one that can run them. */
  waits: string[]
}

type Place = Pick<Toolbox, 'name' | 'state' | 'draining' | 'labels'>

type Placed = Pick<
  Server,
  'name' | 'enabled' | 'instances' | 'toolbox' | 'toolbox_removed_at' | 'toolbox_labels'
>

/** The API names no more servers that stay. */
const MOST_STAYING = 100

/** Looks at its servers, as far as they are known (those that run there or must), and at what else there is. */
export function removalOf(
  toolbox: Pick<Toolbox, 'name' | 'draining' | 'drain'>,
  servers: readonly Placed[],
  toolboxes: readonly Place[],
): Removal {
  const [bound, moves, serves, waits]: [string[], string[], string[], string[]] = [[], [], [], []]
  const others = toolboxes.filter(
    (one) => one.name !== toolbox.name && one.state === 'online' && !one.draining,
  )
  // It knows more than labels: what each toolbox can run, and which paths it grants.
  const stays = toolbox.drain?.stays ?? []
  let [failing, labelled] = [0, false]
  for (const server of servers) {
    const isBound = server.toolbox === toolbox.name && server.toolbox_removed_at == null
    const isThere = server.instances.some((instance) => instance.toolbox === toolbox.name)
    const elsewhere = server.instances.filter((instance) => instance.toolbox !== toolbox.name)
    const hasPlace =
      !stays.includes(server.name) &&
      (elsewhere.length > 0 || others.some((other) => suits(other, server.toolbox_labels ?? {})))
    if (isBound) {
      bound.push(server.name)
      failing += server.enabled ? 1 : 0
    }
    // One that is bound to another toolbox is on its way there already.
    else if (!server.enabled || !isThere || server.toolbox != null) continue
    else if (elsewhere.some(({ phase }) => phase === 'ready')) serves.push(server.name)
    else if (hasPlace) {
      moves.push(server.name)
      labelled ||= Object.keys(server.toolbox_labels ?? {}).length > 0
    } else waits.push(server.name)
  }
  // Of very many servers not all are listed.
  const listed = new Set(servers.map(({ name }) => name))
  waits.push(...stays.filter((name) => !listed.has(name)))
  for (const names of [bound, moves, serves, waits]) names.sort()
  const refused = bound.length > 0 && !toolbox.draining
  return {
    refused,
    certain: toolbox.drain != null && stays.length < MOST_STAYING,
    bound,
    failing,
    moves,
    labelled,
    serves,
    waits,
  }
}

function suits({ labels }: Place, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value)
}
