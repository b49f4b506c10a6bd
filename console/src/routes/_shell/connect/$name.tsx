import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { getConnect } from '@/api/generated/connect'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { ConnectPage } from '@/features/connect/public/connect-page'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { serversQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

const Search = v.object({
  client: v.optional(v.fallback(v.optional(v.string()), undefined)),
})

export const Route = createFileRoute('/_shell/connect/$name')({
  validateSearch: Search,
  head: ({ params }) => pageTitle(t('Connect: {name}', { name: params.name })),
  loader: ({ context: { queryClient }, params: { name } }) =>
    Promise.all([
      queryClient.ensureQueryData(q(getConnect, { path: { name }, query: {} })),
      queryClient.ensureQueryData(toolsetsQuery),
      queryClient.ensureInfiniteQueryData(serversQuery),
    ]),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ConnectPage
      key={name}
      name={name}
      search={search}
      onSearchChange={(next) => void navigate({ search: next, replace: true, resetScroll: false })}
    />
  )
}
