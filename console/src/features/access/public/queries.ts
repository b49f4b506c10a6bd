import { listKeys } from '@/api/generated/keys'
import { listMembers } from '@/api/generated/members'
import { q, qPages } from '@/api/queries'

/** What somebody else changed of members and keys comes with no event: while they are shown they are read again. */
const READ_AGAIN_MS = 30_000

/** The members, by e-mail address. */
export const membersQuery = { ...q(listMembers, {}), refetchInterval: READ_AGAIN_MS }

/** The API keys: all, or only one's own. */
export const keysQuery = { ...qPages(listKeys, { query: { limit: 500 } }), refetchInterval: READ_AGAIN_MS }
