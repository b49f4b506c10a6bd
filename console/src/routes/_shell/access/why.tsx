import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { WhyPage } from '@/features/access/public/why-page'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/access/why')({
  validateSearch: v.object({ action: text, resource: text, member: text, key: text }),
  beforeLoad: ({ context }) => onlyFor(context.session, 'policy:explain'),
  head: () => pageTitle(t('Why')),
  component: Page,
})

function Page() {
  const search = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <WhyPage
      question={search}
      onQuestionChange={(question) => void navigate({ search: question, replace: true, resetScroll: false })}
    />
  )
}
