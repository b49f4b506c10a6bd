import { useQuery } from '@tanstack/react-query'
import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { listCategories } from '@/api/generated/catalog'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { entryParams } from '@/features/catalog/public/entry-parts'
import { PublishPage } from '@/features/catalog/public/publish-page'
import { entryQuery } from '@/features/catalog/public/queries'
import { t } from '@/lib/t'

const Search = v.object({
  /** The entry whose document it begins with. */
  from: v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined)),
})

export const Route = createFileRoute('/_shell/marketplace/publish')({
  validateSearch: Search,
  loaderDeps: ({ search: { from } }) => ({ from }),
  head: () => pageTitle(t('Publish an entry')),
  loader: async ({ context: { queryClient }, deps: { from } }) => {
    void queryClient.prefetchQuery(q(listCategories, {}))
    if (from !== undefined) await queryClient.ensureQueryData(entryQuery(from))
  },
  component: Page,
})

function Page() {
  const { from } = Route.useSearch()
  const navigate = Route.useNavigate()
  const { data } = useQuery({ ...entryQuery(from ?? ''), enabled: from !== undefined })
  return (
    <PublishPage
      key={from ?? ''}
      from={from === undefined ? undefined : data}
      onPublished={(name) =>
        void navigate({ to: '/marketplace/$namespace/$name', params: entryParams(name) })
      }
    />
  )
}
