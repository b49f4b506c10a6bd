import { listServers } from '@/api/generated/servers'
import { qPages } from '@/api/queries'

/** All servers, page by page. The list is searched, filtered and ordered here, so that typing needs no round trip. */
export const serversQuery = qPages(listServers, { query: { limit: 500 } })
