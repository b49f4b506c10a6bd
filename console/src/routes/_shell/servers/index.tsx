import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { PHASE } from '@/api/generated/enums'
import { pageTitle } from '@/app/title'
import { serversQuery } from '@/features/servers/public/queries'
import { ServersPage } from '@/features/servers/public/servers-page'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

const Search = v.object({
  search: text,
  phase: v.optional(v.fallback(v.optional(v.picklist(PHASE)), undefined)),
  kind: text,
  toolbox: text,
  sort: text,
  descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
})

export const Route = createFileRoute('/_shell/servers/')({
  validateSearch: Search,
  head: () => pageTitle(t('Servers')),
  loader: ({ context: { queryClient } }) => queryClient.ensureInfiniteQueryData(serversQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ServersPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
