import { listCredentials } from '@/api/generated/credentials'
import { qPages } from '@/api/queries'

/** All credentials, without their secrets. */
export const credentialsQuery = qPages(listCredentials, { query: { limit: 500 } })
