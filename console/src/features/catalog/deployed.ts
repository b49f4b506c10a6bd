import type { Server } from '@/api/generated/types'
import { phaseKind } from '@/features/servers/public/phase'
import type { StatusKind } from '@/ui/status'

/** What needs a look stands first, and what is stopped last. */
const ORDER: readonly StatusKind[] = ['bad', 'warn', 'unknown', 'waiting', 'working', 'good', 'off']

/** The servers that came from an entry, of those that a search for its name found: those in trouble first. */
export function deployedOf(servers: readonly Server[], entry: string): Server[] {
  const place = (server: Server) => ORDER.indexOf(phaseKind(server.phase))
  return servers
    .filter((server) => server.entry?.name === entry)
    .toSorted((one, other) => place(one) - place(other) || one.name.localeCompare(other.name))
}
