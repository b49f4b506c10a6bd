import { createFileRoute, redirect } from '@tanstack/react-router'
import { isProblem } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { pageTitle } from '@/app/title'
import { SetupPage } from '@/features/account/public/setup-page'
import { t } from '@/lib/t'

export const Route = createFileRoute('/setup')({
  beforeLoad: async ({ context: { queryClient } }) => {
    try {
      const session = await queryClient.ensureQueryData(sessionQuery)
      if (session.first_run !== true) throw redirect({ to: '/', replace: true })
    } catch (error) {
      if (!isProblem(error, 401)) throw error
      throw redirect({ to: '/sign-in', search: { return: '/setup' } })
    }
  },
  head: () => pageTitle(t('First start')),
  component: SetupPage,
})
