import {
  getServer,
  getServerMetrics,
  getServerSettings,
  listRevisions,
  listServers,
} from '@/api/generated/servers'
import type { MetricsWindow } from '@/api/generated/types'
import { q, qPages } from '@/api/queries'

/** All servers, page by page. The list is searched, filtered and ordered here, so that typing needs no round trip. */
export const serversQuery = qPages(listServers, { query: { limit: 500, brief: true } })

/** One server. */
export function serverQuery(name: string) {
  return q(getServer, { path: { name } })
}

/** What was set on a server. */
export function settingsQuery(name: string) {
  return q(getServerSettings, { path: { name } })
}

/** The revisions of a server, newest first. */
export function revisionsQuery(name: string) {
  return qPages(listRevisions, { path: { name }, query: { limit: 100 } })
}

/** What went through a server and what it used. */
export function metricsQuery(name: string, window: MetricsWindow) {
  return q(getServerMetrics, { path: { name }, query: { window } })
}
