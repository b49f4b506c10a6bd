import { listCredentials } from '@/api/generated/credentials'
import { qPages } from '@/api/queries'

/** All credentials, without their secrets. A change comes with no event: while they are shown they are read again. */
export const credentialsQuery = {
  ...qPages(listCredentials, { query: { limit: 500 } }),
  refetchInterval: 30_000,
}
