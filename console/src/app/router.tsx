import { createRouter, type ErrorComponentProps } from '@tanstack/react-router'
import { isProblem } from '@/api/client'
import { routeTree } from '@/routeTree.gen'
import { ErrorPage, NotFoundPage } from './error-page'
import { PendingPage } from './pending-page'
import { queryClient } from './query-client'

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
  defaultNotFoundComponent: () => <NotFoundPage />,
  scrollRestoration: true,
})

function RouteError({ error, reset }: ErrorComponentProps) {
  if (isProblem(error, 404)) return <NotFoundPage detail={error.detail} />
  const retry = () => {
    reset()
    void router.invalidate()
  }
  return <ErrorPage error={error} onRetry={retry} />
}

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router
  }
}
