import { createFileRoute } from '@tanstack/react-router'

export const Route = createFileRoute('/_shell/connect/')({
  component: RouteComponent,
})

function RouteComponent() {
  return <div>Hello "/_shell/connect/"!</div>
}
