import { createFileRoute, lazyRouteComponent } from '@tanstack/react-router'
import * as v from 'valibot'
import { listCredentials } from '@/api/generated/credentials'
import { listToolboxes } from '@/api/generated/toolboxes'
import { q } from '@/api/queries'
import { may } from '@/api/session'
import { pageTitle } from '@/app/title'
import { entryQuery } from '@/features/catalog/public/queries'
import { DeployPage } from '@/features/deploy/public/deploy-page'
import { nearNamesQuery } from '@/features/deploy/public/near-names'
import { serverQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

const text = v.optional(v.fallback(v.optional(v.pipe(v.string(), v.maxLength(200))), undefined))

const Search = v.object({
  version: text,
  /** The server whose rollout is shown: it was just made here. */
  server: text,
})

/** Apart, because the form needs none of it: it comes while the form is sent. */
const DeployProgress = lazyRouteComponent(
  () => import('@/features/deploy/public/deploy-progress'),
  'DeployProgress',
)

export const Route = createFileRoute('/_shell/deploy/$namespace/$name')({
  validateSearch: Search,
  loaderDeps: ({ search: { version, server } }) => ({ version, server }),
  head: ({ params }) => pageTitle(t('Deploy {name}', { name: params.name })),
  loader: async ({ context: { queryClient, session }, params: { namespace, name }, deps }) => {
    if (deps.server !== undefined) {
      await Promise.all([queryClient.ensureQueryData(serverQuery(deps.server)), DeployProgress.preload?.()])
      return
    }
    if (may(session, 'credential:read'))
      void queryClient.prefetchQuery(q(listCredentials, { query: { limit: 500 } }))
    if (may(session, 'toolbox:read')) void queryClient.prefetchQuery(q(listToolboxes, {}))
    await Promise.all([
      queryClient.ensureQueryData(entryQuery(`${namespace}/${name}`, deps.version)),
      queryClient.prefetchQuery(nearNamesQuery(name)),
    ])
  },
  component: Page,
})

function Page() {
  const { namespace, name } = Route.useParams()
  const { version, server } = Route.useSearch()
  const navigate = Route.useNavigate()
  if (server !== undefined) return <DeployProgress name={server} />
  return (
    <DeployPage
      name={`${namespace}/${name}`}
      version={version}
      onDeployed={(made, starts) =>
        void (starts
          ? navigate({ search: { server: made }, replace: true })
          : navigate({ to: '/servers/$name', params: { name: made }, replace: true }))
      }
    />
  )
}
