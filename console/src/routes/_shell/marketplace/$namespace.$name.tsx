import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { EntryPage } from '@/features/catalog/public/entry-page'
import { entryQuery, versionsQuery } from '@/features/catalog/public/queries'

const Search = v.object({
  version: v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined)),
})

export const Route = createFileRoute('/_shell/marketplace/$namespace/$name')({
  validateSearch: Search,
  loaderDeps: ({ search: { version } }) => ({ version }),
  head: ({ params }) => pageTitle(params.name),
  loader: async ({ context: { queryClient }, params: { namespace, name }, deps: { version } }) => {
    void queryClient.prefetchQuery(versionsQuery(`${namespace}/${name}`))
    await queryClient.ensureQueryData(entryQuery(`${namespace}/${name}`, version))
  },
  component: Page,
})

function Page() {
  const { namespace, name } = Route.useParams()
  const { version } = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <EntryPage
      name={`${namespace}/${name}`}
      version={version}
      onVersionChange={(next) => void navigate({ search: next === undefined ? {} : { version: next } })}
    />
  )
}
