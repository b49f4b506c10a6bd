/**
 * A thing that is no more: what was read of it must not stay on the page as if it were still so. A query keeps its
 * answer when reading it again fails, which is right when Toolyard cannot be reached; when the API says that there is
 * no such thing, the page becomes what a reload shows.
 */
import type { Query } from '@tanstack/react-query'
import { isProblem } from './client'

/** Takes away what a query had read, when the API says that there is no such thing (any more). */
export function forgetGone(error: unknown, query: Query<unknown, unknown>): void {
  // Only the API itself can know: what stands before it answers 404 while it is restarted.
  if (!isProblem(error, 404) || error.code !== 'not_found' || query.state.data === undefined) return
  query.setState({ data: undefined, dataUpdatedAt: 0 })
}
