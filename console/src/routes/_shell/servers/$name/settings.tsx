import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { settingsQuery } from '@/features/servers/public/queries'
import { ServerSettings } from '@/features/servers/public/server-settings'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/servers/$name/settings')({
  head: ({ params }) => pageTitle(t('Settings of {name}', { name: params.name })),
  loader: ({ context: { queryClient }, params }) => queryClient.ensureQueryData(settingsQuery(params.name)),
  component: Page,
})

function Page() {
  const { name } = Route.useParams()
  return <ServerSettings name={name} />
}
