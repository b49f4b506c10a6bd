import { createFileRoute, redirect } from '@tanstack/react-router'
import { isProblem } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { PendingPage } from '@/app/pending-page'
import { Shell } from '@/app/shell'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell')({
  beforeLoad: async ({ context: { queryClient }, location }) => {
    try {
      return { session: await queryClient.ensureQueryData(sessionQuery) }
    } catch (error) {
      if (!isProblem(error, 401)) throw error
      throw redirect({ to: '/sign-in', search: location.href === '/' ? {} : { return: location.href } })
    }
  },
  component: Shell,
  pendingComponent: () => (
    <main className="mx-auto max-w-[90rem] p-8">
      <h1 className="sr-only">{t('Loading')}</h1>
      <PendingPage />
    </main>
  ),
})
