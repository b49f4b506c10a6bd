/**
 * A thing that is no more: what was read of it must not stay on the page as if it were still so. A query keeps its
 * answer when reading it again fails, which is right when Toolyard cannot be reached; when the API says that there is
 * no such thing, the page becomes what a reload shows. While something is typed that is not saved, it would be lost with
 * the page: the answer stays until that was given up (`gone-again.ts`), and the page looks with {@link isGone} at the
 * query's error.
 */
import type { Query } from '@tanstack/react-query'
import { hasUnsaved } from '@/lib/form'
import { isProblem } from './client'

/** Whether the API says that there is no such thing (any more). */
export function isGone(error: unknown): boolean {
  // Only the API itself can know: what stands before it answers 404 while it is restarted.
  return isProblem(error, 404) && error.code === 'not_found'
}

/** Takes away what a query had read, when the API says that there is no such thing (any more). */
export function forgetGone(error: unknown, query: Query<unknown, unknown>): void {
  if (!isGone(error) || query.state.data === undefined || hasUnsaved()) return
  query.setState({ data: undefined, dataUpdatedAt: 0 })
}
