/** What the removal of a toolbox means for its servers, by the API's own rules (crates/control/src/app/toolboxes.rs). Pure. */
import type { Server, Toolbox } from '@/api/generated/types'

/** What becomes of its servers. */
export interface Removal {
  /** Those that must run there: until it is drained, it is not removed because of them. */
  refusedFor: string[]
  /** Those that have no other place, and stop with it. */
  stops: string[]
}

/** Looks at its servers, as far as they are known: those that run there or must. */
export function removalOf(
  toolbox: Pick<Toolbox, 'name' | 'draining' | 'drain'>,
  servers: readonly Pick<Server, 'name' | 'toolbox'>[],
): Removal {
  const bound = servers.filter((server) => server.toolbox === toolbox.name).map(({ name }) => name)
  if (!toolbox.draining) return { refusedFor: bound.sort(), stops: [] }
  return { refusedFor: [], stops: [...new Set([...bound, ...(toolbox.drain?.stays ?? [])])].sort() }
}
