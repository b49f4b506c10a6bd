import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { ConnectPicker } from '@/features/connect/public/connect-page'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { serversQuery } from '@/features/servers/public/queries'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/connect/')({
  head: () => pageTitle(t('Connect')),
  loader: ({ context: { queryClient } }) =>
    Promise.all([
      queryClient.ensureQueryData(toolsetsQuery),
      queryClient.ensureInfiniteQueryData(serversQuery),
    ]),
  component: ConnectPicker,
})
