import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { CredentialsPage } from '@/features/credentials/public/credentials-page'
import { credentialsQuery } from '@/features/credentials/public/queries'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/credentials/')({
  validateSearch: v.object({
    search: text,
    sort: text,
    descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
  }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'credential:read'),
  head: () => pageTitle(t('Credentials')),
  loader: ({ context: { queryClient } }) => queryClient.ensureInfiniteQueryData(credentialsQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <CredentialsPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
