import type { QueryClient } from '@tanstack/react-query'
import { createRootRouteWithContext, HeadContent, Outlet } from '@tanstack/react-router'
import { RouteAnnouncer } from '@/app/announcer'

export const Route = createRootRouteWithContext<{ queryClient: QueryClient }>()({
  head: () => ({ meta: [{ title: 'Toolyard' }] }),
  component: Root,
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
