import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { getConnect } from '@/api/generated/connect'
import { q } from '@/api/queries'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { targetQuery } from '@/features/mcp/public/target'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { PlaygroundPage } from '@/features/playground/public/playground-page'
import { serversQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

const Search = v.object({
  kind: v.optional(v.fallback(v.optional(v.picklist(['tool', 'resource', 'prompt'])), undefined)),
  item: v.optional(v.fallback(v.optional(v.string()), undefined)),
})

export const Route = createFileRoute('/_shell/playground/$name')({
  validateSearch: Search,
  beforeLoad: ({ context }) => onlyFor(context.session, 'tool:call'),
  head: ({ params }) => pageTitle(t('Playground: {name}', { name: params.name })),
  loader: ({ context: { queryClient }, params: { name } }) =>
    Promise.all([
      queryClient.ensureQueryData(targetQuery(name)),
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
    <PlaygroundPage
      name={name}
      search={search}
      onSearchChange={(next) => void navigate({ search: next, resetScroll: false })}
    />
  )
}
