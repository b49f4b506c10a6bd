import { createFileRoute } from '@tanstack/react-router'
import { listServers } from '@/api/generated/servers'
import { listToolboxes } from '@/api/generated/toolboxes'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { OverviewPage } from '@/features/overview/public/overview-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/')({
  head: () => pageTitle(t('Overview')),
  loader: async ({ context: { queryClient } }) => {
    await Promise.all([
      queryClient.prefetchQuery(q(listServers, { query: { limit: 500 } })),
      queryClient.prefetchQuery(q(listToolboxes, {})),
    ])
  },
  component: OverviewPage,
})
