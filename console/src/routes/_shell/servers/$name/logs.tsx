import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { LOG_STREAM } from '@/api/generated/enums'
import { pageTitle } from '@/app/title'
import { ServerLogs } from '@/features/servers/public/server-logs'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.string()), undefined))

export const Route = createFileRoute('/_shell/servers/$name/logs')({
  validateSearch: v.object({
    search: text,
    stream: v.optional(v.fallback(v.optional(v.picklist(LOG_STREAM)), undefined)),
    instance: text,
    revision: v.optional(v.fallback(v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))), undefined)),
  }),
  head: ({ params }) => pageTitle(t('Logs of {name}', { name: params.name })),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const choice = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ServerLogs
      name={name}
      choice={choice}
      onChoiceChange={(changes) =>
        void navigate({ search: (before) => ({ ...before, ...changes }), replace: true, resetScroll: false })
      }
    />
  )
}
