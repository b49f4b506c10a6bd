import { createFileRoute } from '@tanstack/react-router'

export const Route = createFileRoute('/_shell/marketplace/publish')({
  component: RouteComponent,
})

function RouteComponent() {
  return <div>Hello "/_shell/marketplace/publish"!</div>
}
