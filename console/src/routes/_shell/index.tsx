import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { OverviewPage } from '@/features/overview/public/overview-page'
import { overviewQuery } from '@/features/overview/public/queries'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/')({
  head: () => pageTitle(t('Overview')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(overviewQuery),
  component: OverviewPage,
})
