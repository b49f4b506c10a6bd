import { listKeys } from '@/api/generated/keys'
import { listMembers } from '@/api/generated/members'
import { q, qPages } from '@/api/queries'

/** The members, by e-mail address. */
export const membersQuery = q(listMembers, {})

/** The API keys: all, or only one's own. */
export const keysQuery = qPages(listKeys, { query: { limit: 500 } })
