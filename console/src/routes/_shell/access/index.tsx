import { createFileRoute, redirect } from '@tanstack/react-router'
import { may } from '@/api/session'

export const Route = createFileRoute('/_shell/access/')({
  beforeLoad: ({ context: { session } }) => {
    throw redirect({ to: may(session, 'member:read') ? '/access/members' : '/access/keys', replace: true })
  },
})
