import { getEntry, listEntries, listEntryVersions } from '@/api/generated/catalog'
import { q, qPages } from '@/api/queries'

/** What the marketplace's address says. */
export interface MarketplaceSearch {
  search?: string | undefined
  category?: string | undefined
  kind?: string | undefined
  source?: string | undefined
  verified?: boolean | undefined
  sort?: string | undefined
}

/** The entries that fit, page by page. Without a search what is used here most comes first. */
export function entriesQuery(search: MarketplaceSearch) {
  const text = search.search?.trim().slice(0, 200)
  return qPages(listEntries, {
    query: {
      limit: 48,
      ...(text ? { search: text } : {}),
      ...(search.category ? { category: search.category } : {}),
      ...(search.kind ? { kind: search.kind } : {}),
      ...(search.source ? { source: search.source } : {}),
      ...(search.verified === undefined ? {} : { verified: search.verified }),
      sort: search.sort ?? (text ? 'relevance' : 'deployments'),
    },
  })
}

/** The entries that wait for a review. */
export const submittedQuery = q(listEntries, { query: { review: 'submitted', sort: 'updated', limit: 100 } })

/** One entry; the latest version when none is named. */
export function entryQuery(name: string, version?: string) {
  return q(getEntry, { path: { name }, query: version === undefined ? {} : { version } })
}

/** The versions of an entry. */
export function versionsQuery(name: string) {
  return q(listEntryVersions, { path: { name } })
}
