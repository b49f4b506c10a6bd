/** A server or a toolset, as something that MCP clients connect to: they share one name space. */
import { queryOptions } from '@tanstack/react-query'
import { call } from '@/api/client'
import { getConnect } from '@/api/generated/connect'
import { getServer } from '@/api/generated/servers'
import { getToolset } from '@/api/generated/toolsets'
import type { Server, Toolset } from '@/api/generated/types'
import { q, queryKey } from '@/api/queries'

/** What a name stands for. */
export interface Target {
  name: string
  kind: 'server' | 'toolset'
}

/** What a name stands for; it does not change while there is such a thing. */
export function targetQuery(name: string) {
  return queryOptions({
    queryKey: [...queryKey(getConnect, { path: { name }, query: {} }), 'target'],
    queryFn: async ({ signal }): Promise<Target> => {
      const { kind } = await call(getConnect, { path: { name }, query: {} }, { signal })
      return { name, kind: kind === 'toolset' ? 'toolset' : 'server' }
    },
    staleTime: 60_000,
  })
}

/** The server of a target. */
export function targetServerQuery(target: Target) {
  return { ...q(getServer, { path: { name: target.name } }), enabled: target.kind === 'server' }
}

/** The toolset of a target. */
export function targetToolsetQuery(target: Target) {
  return { ...q(getToolset, { path: { name: target.name } }), enabled: target.kind === 'toolset' }
}

/** What changes when a server's tools may have changed: for the MCP queries. */
export function serverGeneration(server: Server): string {
  return `${server.instance_id ?? ''} ${server.phase === 'ready' || server.phase === 'degraded'}`
}

/** What changes when a toolset's tools may have changed. */
export function toolsetGeneration(toolset: Toolset): string {
  return toolset.etag
}
