import { createFileRoute, redirect } from '@tanstack/react-router'
import { isProblem } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { PendingPage } from '@/app/pending-page'
import { Shell } from '@/app/shell'
import { setupIsDue } from '@/features/account/public/first-run'
import { t } from '@/lib/t'

export const Route = createFileRoute('/_shell')({
  beforeLoad: async ({ context: { queryClient }, location }) => {
    try {
      const session = await queryClient.ensureQueryData(sessionQuery)
      if (setupIsDue(session)) throw redirect({ to: '/setup' })
      return { session }
    } catch (error) {
      if (isProblem(error, 0)) {
        const { restoreLastKnown } = await import('@/app/last-known')
        if (await restoreLastKnown(queryClient)) {
          return { session: await queryClient.ensureQueryData(sessionQuery) }
        }
      }
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
