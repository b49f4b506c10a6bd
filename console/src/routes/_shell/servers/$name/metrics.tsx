import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { METRICS_WINDOW } from '@/api/generated/enums'
import { pageTitle } from '@/app/title'
import { metricsQuery } from '@/features/servers/public/queries'
import { ServerMetrics } from '@/features/servers/public/server-metrics'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/servers/$name/metrics')({
  validateSearch: v.object({
    range: v.optional(v.fallback(v.optional(v.picklist(METRICS_WINDOW)), undefined)),
  }),
  loaderDeps: ({ search }) => ({ range: search.range ?? '1h' }),
  // A panel says itself when its numbers cannot be read.
  loader: ({ context: { queryClient }, params, deps }) => {
    void queryClient.prefetchQuery(metricsQuery(params.name, deps.range))
  },
  head: ({ params }) => pageTitle(t('Metrics of {name}', { name: params.name })),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const { range = '1h' } = Route.useSearch()
  const navigate = Route.useNavigate()
  return (
    <ServerMetrics
      name={name}
      range={range}
      onRangeChange={(next) => void navigate({ search: { range: next }, replace: true, resetScroll: false })}
    />
  )
}
