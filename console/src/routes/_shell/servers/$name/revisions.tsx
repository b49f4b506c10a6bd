import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { revisionsQuery } from '@/features/servers/public/queries'
import { ServerRevisions } from '@/features/servers/public/server-revisions'
import { t } from '@/lib/t'

const number = v.optional(v.fallback(v.optional(v.number()), undefined))

export const Route = createFileRoute('/_shell/servers/$name/revisions')({
  validateSearch: v.object({ from: number, to: number }),
  head: ({ params }) => pageTitle(t('Revisions of {name}', { name: params.name })),
  loader: ({ context: { queryClient }, params }) =>
    queryClient.ensureInfiniteQueryData(revisionsQuery(params.name)),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const compared = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ServerRevisions
      name={name}
      compared={compared}
      onComparedChange={(search) => void navigate({ search, replace: true, resetScroll: false })}
    />
  )
}
