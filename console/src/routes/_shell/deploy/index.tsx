import { createFileRoute, lazyRouteComponent } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { RegisterPage } from '@/features/deploy/public/register-page'
import { serverQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

const Search = v.object({
  /** The server whose rollout is shown: it was just made here. */
  server: v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined)),
})

/** Apart, because the form needs none of it: it comes while the form is sent. */
const DeployProgress = lazyRouteComponent(
  () => import('@/features/deploy/public/deploy-progress'),
  'DeployProgress',
)

export const Route = createFileRoute('/_shell/deploy/')({
  validateSearch: Search,
  loaderDeps: ({ search: { server } }) => ({ server }),
  head: () => pageTitle(t('Register a server')),
  loader: async ({ context: { queryClient }, deps: { server } }) => {
    if (server === undefined) return
    await Promise.all([queryClient.ensureQueryData(serverQuery(server)), DeployProgress.preload?.()])
  },
  component: Page,
})

function Page() {
  const { server } = Route.useSearch()
  const navigate = Route.useNavigate()
  if (server !== undefined) return <DeployProgress name={server} />
  return <RegisterPage onDeployed={(made) => void navigate({ search: { server: made }, replace: true })} />
}
