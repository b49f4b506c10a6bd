import { createFileRoute } from '@tanstack/react-router'

export const Route = createFileRoute('/_shell/servers/$name/revisions')({
  component: RouteComponent,
})

function RouteComponent() {
  return <div>Hello "/_shell/servers/$name/revisions"!</div>
}
