/** What the list says of a server, worked out of what the API says. */
import type { Instance, Server } from '@/api/generated/types'

/** The instance that serves, or else the one that may become it. */
export function mainInstance(server: Server): Instance | undefined {
  return server.instances.find((instance) => instance.id === server.instance_id) ?? server.instances.at(-1)
}

/** Whether its toolbox still tells of an instance: what it used before is nothing that it uses. */
export function isHeard(instance: Instance): boolean {
  return instance.phase !== 'unknown'
}

/** Resident memory of all its instances, in bytes. */
export function memoryOf(server: Server): number {
  return server.instances
    .filter(isHeard)
    .reduce((sum, instance) => sum + (instance.usage?.memory_bytes ?? 0), 0)
}

/** How often its instances were started again. */
export function restartsOf(server: Server): number {
  return server.instances.reduce((sum, instance) => sum + instance.restarts, 0)
}

/** How many tools it lists; `undefined` when nobody knows. */
export function toolsOf(server: Server): number | undefined {
  return mainInstance(server)?.mcp?.tools
}

/** Where it runs: the toolboxes of its instances, or the one that it is bound to. */
export function toolboxesOf(server: Server): string[] {
  const names = server.instances.map((instance) => instance.toolbox ?? undefined)
  const found = [...new Set([...names, server.toolbox ?? undefined])]
  return found.filter((name): name is string => name !== undefined)
}
