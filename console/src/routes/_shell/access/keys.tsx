import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { KeysPage } from '@/features/access/public/keys-page'
import { keysQuery } from '@/features/access/public/queries'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/access/keys')({
  validateSearch: v.object({
    search: text,
    state: v.optional(v.fallback(v.optional(v.picklist(['active', 'expired', 'revoked'])), undefined)),
    sort: text,
    descending: v.optional(v.fallback(v.optional(v.boolean()), undefined)),
  }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'key:read'),
  head: () => pageTitle(t('API keys')),
  loader: ({ context: { queryClient } }) => queryClient.ensureInfiniteQueryData(keysQuery),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <KeysPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
