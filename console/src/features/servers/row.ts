/** What the list says of a server, worked out of what the API says. */
import type { Instance, Server } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'

/** The instance that serves, or else the one that may become it. */
export function mainInstance(server: Server): Instance | undefined {
  return server.instances.find((instance) => instance.id === server.instance_id) ?? server.instances.at(-1)
}

/** Whether its toolbox still tells of an instance: what it used before is nothing that it uses. */
export function isHeard(instance: Instance): boolean {
  return instance.phase !== 'unknown'
}

/** The credentials of which something of it was started with an older secret than the current one. */
export function outdatedSecrets(server: Pick<Server, 'instances'>): string[] {
  return [...new Set(server.instances.flatMap((instance) => instance.outdated_secrets ?? []))].sort()
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

/** Where it is to run, in words. */
export function placeText(server: Pick<Server, 'toolbox' | 'toolbox_removed_at' | 'toolbox_labels'>): string {
  const { toolbox: name } = server
  if (server.toolbox_removed_at != null)
    return name == null ? t('one that was removed') : t('{name}, which was removed', { name })
  if (name != null) return name
  const labels = Object.entries(server.toolbox_labels ?? {}).map(([label, value]) => `${label}=${value}`)
  return labels.length > 0
    ? t('any with {labels}', { labels: oneLine(labels.join(', '), 300) })
    : t('any that can')
}

/** Where it runs: the toolboxes of its instances, or the one that it is bound to, while that is there. */
export function toolboxesOf(server: Server): string[] {
  const names = server.instances.map((instance) => instance.toolbox ?? undefined)
  const bound = server.toolbox_removed_at == null ? server.toolbox : undefined
  const found = [...new Set([...names, bound ?? undefined])]
  return found.filter((name): name is string => name !== undefined)
}
