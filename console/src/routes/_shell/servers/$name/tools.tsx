import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { ServerTools } from '@/features/servers/public/server-tools'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/servers/$name/tools')({
  validateSearch: v.object({
    search: v.optional(v.fallback(v.optional(v.string()), undefined)),
    list: v.optional(v.fallback(v.optional(v.picklist(['tools', 'resources', 'prompts'])), undefined)),
  }),
  head: ({ params }) => pageTitle(t('Tools of {name}', { name: params.name })),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ServerTools
      name={name}
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
