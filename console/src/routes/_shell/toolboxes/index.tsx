import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { toolboxesQuery } from '@/features/toolboxes/public/queries'
import { ToolboxesPage } from '@/features/toolboxes/public/toolboxes-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/toolboxes/')({
  validateSearch: v.object({
    sort: v.optional(v.fallback(v.optional(v.string()), undefined)),
    descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
  }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'toolbox:read'),
  head: () => pageTitle(t('Toolboxes')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(toolboxesQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ToolboxesPage
      sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
      onSortChange={({ column, descending }) =>
        void navigate({
          search: { sort: column, descending: descending || undefined },
          replace: true,
          resetScroll: false,
        })
      }
    />
  )
}
