import { createFileRoute } from '@tanstack/react-router'
import { listCategories } from '@/api/generated/catalog'
import { q } from '@/api/queries'
import { pageTitle } from '@/app/title'
import { entryParams } from '@/features/catalog/public/entry-parts'
import { PublishPage } from '@/features/catalog/public/publish-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/marketplace/publish')({
  head: () => pageTitle(t('Publish an entry')),
  loader: ({ context: { queryClient } }) => {
    void queryClient.prefetchQuery(q(listCategories, {}))
  },
  component: Page,
})

function Page() {
  const navigate = Route.useNavigate()
  return (
    <PublishPage
      onPublished={(name) =>
        void navigate({ to: '/marketplace/$namespace/$name', params: entryParams(name) })
      }
    />
  )
}
