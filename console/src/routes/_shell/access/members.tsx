import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { MembersPage } from '@/features/access/public/members-page'
import { membersQuery } from '@/features/access/public/queries'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/access/members')({
  validateSearch: v.object({
    search: text,
    sort: text,
    descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
  }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'member:read'),
  head: () => pageTitle(t('Members')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(membersQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <MembersPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
