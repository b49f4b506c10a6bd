import { createFileRoute } from '@tanstack/react-router'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { toolboxQuery } from '@/features/toolboxes/public/queries'
import { ToolboxPage } from '@/features/toolboxes/public/toolbox-page'

export const Route = createFileRoute('/_shell/toolboxes/$name')({
  beforeLoad: ({ context }) => onlyFor(context.session, 'toolbox:read'),
  head: ({ params }) => pageTitle(params.name),
  loader: ({ context: { queryClient }, params }) => queryClient.ensureQueryData(toolboxQuery(params.name)),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  const navigate = Route.useNavigate()
  return (
    <ToolboxPage name={name} onRemoved={() => void navigate({ to: '/toolboxes', ignoreBlocker: true })} />
  )
}
