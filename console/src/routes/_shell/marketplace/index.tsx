import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { listCategories, listSources } from '@/api/generated/catalog'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { MarketplacePage } from '@/features/catalog/public/marketplace-page'
import { entriesQuery } from '@/features/catalog/public/queries'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined))

const Search = v.object({
  search: text,
  category: text,
  kind: text,
  source: text,
  verified: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
  sort: v.optional(
    v.fallback(v.optional(v.picklist(['deployments', 'rating', 'updated', 'name'])), undefined),
  ),
})

export const Route = createFileRoute('/_shell/marketplace/')({
  validateSearch: Search,
  head: () => pageTitle(t('Marketplace')),
  // Panels of their own: a page that can show its search needs to wait for none of them.
  loader: ({ context: { queryClient }, location }) => {
    const search = v.safeParse(Search, location.search)
    void queryClient.prefetchInfiniteQuery(entriesQuery(search.success ? search.output : {}))
    void queryClient.prefetchQuery(q(listCategories, {}))
    void queryClient.prefetchQuery(q(listSources, {}))
  },
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <MarketplacePage
      search={search}
      onSearchChange={(changes) =>
        void navigate({
          // as: the page only offers what `Search` knows, and the address is checked again when it is read.
          search: (before) => ({ ...before, ...changes }) as typeof search,
          replace: true,
        })
      }
    />
  )
}
