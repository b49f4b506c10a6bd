import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { serversQuery } from '@/features/servers/public/queries'
import { ToolsetPage, toolsetQuery } from '@/features/toolsets/public/toolset-page'

export const Route = createFileRoute('/_shell/toolsets/$name')({
  head: ({ params }) => pageTitle(params.name),
  loader: ({ context: { queryClient }, params: { name } }) =>
    Promise.all([
      queryClient.ensureQueryData(toolsetQuery(name)),
      queryClient.ensureInfiniteQueryData(serversQuery),
    ]),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  return <ToolsetPage key={name} name={name} />
}
