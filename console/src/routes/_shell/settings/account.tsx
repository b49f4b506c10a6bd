import { createFileRoute } from '@tanstack/react-router'
import { pageTitle } from '@/app/title'
import { AccountPage } from '@/features/settings/public/account-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell/settings/account')({
  head: () => pageTitle(t('Account')),
  component: AccountPage,
})
