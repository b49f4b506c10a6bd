import { createFileRoute, Outlet } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { serverQuery } from '@/features/servers/public/queries'
import { ServerLayout } from '@/features/servers/public/server-layout'

export const Route = createFileRoute('/_shell/servers/$name')({
  head: ({ params }) => pageTitle(params.name),
  loader: ({ context: { queryClient }, params }) => queryClient.ensureQueryData(serverQuery(params.name)),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  return (
    <ServerLayout name={name}>
      <Outlet />
    </ServerLayout>
  )
}
