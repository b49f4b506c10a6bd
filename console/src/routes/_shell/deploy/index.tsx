import { createFileRoute } from '@tanstack/react-router'
import * as v from 'valibot'
import { pageTitle } from '@/app/title'
import { DeployProgress } from '@/features/deploy/public/deploy-progress'
import { RegisterPage } from '@/features/deploy/public/register-page'
import { serverQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

const Search = v.object({
  /** The server whose rollout is shown: it was just made here. */
  server: v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined)),
})

export const Route = createFileRoute('/_shell/deploy/')({
  validateSearch: Search,
  loaderDeps: ({ search: { server } }) => ({ server }),
  head: () => pageTitle(t('Register a server')),
  loader: async ({ context: { queryClient }, deps: { server } }) => {
    if (server !== undefined) await queryClient.ensureQueryData(serverQuery(server))
  },
  component: Page,
})

function Page() {
  const { server } = Route.useSearch()
  const navigate = Route.useNavigate()
  if (server !== undefined) return <DeployProgress name={server} />
  return <RegisterPage onDeployed={(made) => void navigate({ search: { server: made }, replace: true })} />
}
