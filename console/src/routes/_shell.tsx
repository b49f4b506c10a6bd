import { createFileRoute, redirect } from '@tanstack/react-router'
import { isProblem } from '@/api/client'
import { sessionQuery } from '@/api/session'
import { Shell } from '@/app/shell'

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
})
