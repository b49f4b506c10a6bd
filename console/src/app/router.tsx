import { createRouter, type ErrorComponentProps, useMatches } from '@tanstack/react-router'
import type { ReactNode } from 'react'
import { isProblem } from '@/api/client'
import { isGone } from '@/api/gone'
import { t } from '@/lib/t'
import { routeTree } from '@/routeTree.gen'
import { Link } from '@/ui/link'
import { ErrorPage, NotFoundPage } from './error-page'
import { PendingPage } from './pending-page'
import { queryClient } from './query-client'
import { tryAgain, useRecovery } from './recover'

/** The router. Loaders read through the query client, which decides what is stale. */
export const router = createRouter({
  routeTree,
  context: { queryClient },
  defaultPreload: 'intent',
  defaultPreloadDelay: 60,
  defaultPreloadStaleTime: 0,
  defaultPendingMs: 150,
  defaultPendingMinMs: 250,
  defaultPendingComponent: PendingPage,
  defaultErrorComponent: RouteError,
  // Of no route, or a page that is withheld would take the frame around it away.
  defaultNotFoundComponent: ({ data }) => <Framed page={<NotFoundPage data={data} />} />,
  scrollRestoration: true,
})

function RouteError({ error, reset }: ErrorComponentProps) {
  const retry = () => {
    reset()
    void router.invalidate()
  }
  useRecovery(error, retry)
  if (isProblem(error) && isGone(error)) return <NotFoundPage detail={error.detail} />
  return (
    <Framed
      page={<ErrorPage error={error} onRetry={() => void tryAgain(error, retry)} />}
      way={
        <p className="mt-4">
          <Link to="/">{t('Go to the overview')}</Link>
        </p>
      }
    />
  )
}

/** Without the frame around every page there is neither a margin nor, where the page has none itself, a way elsewhere. */
function Framed({ page, way }: { page: ReactNode; way?: ReactNode }) {
  const framed = useMatches({
    select: (matches) => matches.some((match) => match.routeId === '/_shell' && match.status === 'success'),
  })
  if (framed) return page
  return (
    <main className="mx-auto max-w-3xl p-8">
      {page}
      {way}
    </main>
  )
}

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router
  }
}
