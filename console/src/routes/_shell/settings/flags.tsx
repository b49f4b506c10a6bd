import { createFileRoute } from '@tanstack/react-router'
import { listFlags } from '@/api/generated/flags'
import { q } from '@/api/queries'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { FlagsPage } from '@/features/admin/public/flags-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/settings/flags')({
  beforeLoad: ({ context }) => onlyFor(context.session, 'flag:manage'),
  head: () => pageTitle(t('Features')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(q(listFlags, {})),
  component: FlagsPage,
})
