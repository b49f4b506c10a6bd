import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { ToolsetsPage } from '@/features/toolsets/public/toolsets-page'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

const Search = v.object({
  search: text,
  sort: text,
  descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
})

export const Route = createFileRoute('/_shell/toolsets/')({
  validateSearch: Search,
  head: () => pageTitle(t('Toolsets')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(toolsetsQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ToolsetsPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
