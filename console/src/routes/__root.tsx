import type { QueryClient } from '@tanstack/react-query'
import { createRootRouteWithContext, HeadContent, Outlet } from '@tanstack/react-router'
import { RouteAnnouncer } from '@/app/announcer'
import { NotFoundPage } from '@/app/error-page'

export const Route = createRootRouteWithContext<{ queryClient: QueryClient }>()({
  head: () => ({ meta: [{ title: 'Toolyard' }] }),
  component: Root,
  notFoundComponent: ({ data }) => (
    <main className="mx-auto max-w-xl p-8">
      <NotFoundPage data={data} />
    </main>
  ),
})

function Root() {
  return (
    <>
      <HeadContent />
      <RouteAnnouncer />
      <Outlet />
    </>
  )
}
