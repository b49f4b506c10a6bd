import { createFileRoute, Outlet } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { SettingsLayout } from '@/features/settings/public/settings-layout'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/settings')({
  head: () => pageTitle(t('Settings')),
  component: Page,
})

function Page() {
  return (
    <SettingsLayout>
      <Outlet />
    </SettingsLayout>
  )
}
