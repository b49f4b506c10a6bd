import { createFileRoute } from '@tanstack/react-router'
import { ServerOverview } from '@/features/servers/public/server-overview'

export const Route = createFileRoute('/_shell/servers/$name/')({ component: Page })

function Page() {
  const { name } = Route.useParams()
  return <ServerOverview name={name} />
}
