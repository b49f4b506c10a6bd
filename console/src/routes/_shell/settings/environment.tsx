import { createFileRoute } from '@tanstack/react-router'
import { getVersion } from '@/api/generated/system'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { EnvironmentPage } from '@/features/settings/public/environment-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/settings/environment')({
  head: () => pageTitle(t('Environment')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(q(getVersion, {})),
  component: EnvironmentPage,
})
