import { createFileRoute, Outlet } from '@tanstack/react-router'
import { onlyFor } from '@/app/guard'
import { pageTitle } from '@/app/title'
import { AccessLayout } from '@/features/access/public/access-layout'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/access')({
  // What these pages share is sent to whom the server lets see keys.
  beforeLoad: ({ context }) => onlyFor(context.session, 'key:read'),
  head: () => pageTitle(t('Access')),
  component: Page,
})

function Page() {
  return (
    <AccessLayout>
      <Outlet />
    </AccessLayout>
  )
}
