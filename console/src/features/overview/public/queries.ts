import { getOverview } from '@/api/generated/overview'
import { q } from '@/api/queries'

/** Calls are told by no event: the page looks for them this often. */
const LOOK_MS = 30_000

/** Everything that the first page shows. Events say when something but calls changed. */
export const overviewQuery = { ...q(getOverview, {}), refetchInterval: LOOK_MS }
