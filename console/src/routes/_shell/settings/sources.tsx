import { createFileRoute } from '@tanstack/react-router'
import { listSources } from '@/api/generated/catalog'
import { q } from '@/api/queries'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { SourcesPage } from '@/features/admin/public/sources-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/settings/sources')({
  beforeLoad: ({ context }) => onlyFor(context.session, 'catalog:manage'),
  head: () => pageTitle(t('Catalog sources')),
  loader: ({ context: { queryClient } }) => queryClient.ensureQueryData(q(listSources, {})),
  component: SourcesPage,
})
