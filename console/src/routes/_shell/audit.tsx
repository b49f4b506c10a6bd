import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { AuditPage } from '@/features/audit/public/audit-page'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/audit')({
  validateSearch: v.object({
    actor: text,
    action: text,
    target: text,
    outcome: v.optional(v.fallback(v.optional(v.picklist(['done', 'refused'])), undefined)),
    range: v.optional(v.fallback(v.optional(v.picklist(['1h', '24h', '7d', '30d'])), undefined)),
    since: text,
    until: text,
    line: text,
  }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'audit:read'),
  head: () => pageTitle(t('Audit')),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <AuditPage
      search={search}
      onSearchChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
