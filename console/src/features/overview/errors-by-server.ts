/** Whose the errors among calls are. Pure. */
import type { Call } from '@/api/generated/types'

/** How many calls of a server failed; without a name those that reached none. */
export interface ServerErrors {
  server: string | undefined
  count: number
}

/** Failed calls by server, the one with the most first. */
export function errorsByServer(calls: ReadonlyArray<Pick<Call, 'server_name'>>): ServerErrors[] {
  const counts = new Map<string | undefined, number>()
  for (const { server_name } of calls) {
    const server = server_name ?? undefined
    counts.set(server, (counts.get(server) ?? 0) + 1)
  }
  return [...counts]
    .map(([server, count]) => ({ server, count }))
    .toSorted((one, other) => other.count - one.count || (one.server ?? '').localeCompare(other.server ?? ''))
}
