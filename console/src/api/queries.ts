/**
 * How pages read. A query's key is the operation's id and its input, never written by hand: `q(getServer, { path })`
 * for one answer, `qPages(listServers, { query })` for a list that grows by cursor. Loaders call
 * `queryClient.ensureQueryData(q(...))`, pages `useSuspenseQuery(q(...))`.
 */
import { infiniteQueryOptions, type QueryClient, type QueryKey, queryOptions } from '@tanstack/react-query'
import { type CallInput, call } from './client'
import type { Operation } from './operation'

/** The key of an operation's answers; without input the prefix of all of them, to invalidate. */
export function queryKey<Input, Answer>(
  operation: Operation<Input, Answer>,
  input?: CallInput<Input>,
): QueryKey {
  return input === undefined ? [operation.id] : [operation.id, input]
}

/** The query of one answer. */
export function q<Input, Answer>(operation: Operation<Input, Answer>, input: CallInput<Input>) {
  return queryOptions({
    queryKey: queryKey(operation, input),
    queryFn: ({ signal }) => call(operation, input, { signal }),
  })
}

/** A page of any list. */
export interface Page<Item> {
  items: Item[]
  next_cursor?: string | null
}

/** The query of a list, page by page: `data.pages.flatMap((page) => page.items)`, `fetchNextPage`, `hasNextPage`. */
export function qPages<Input, Item>(operation: Operation<Input, Page<Item>>, input: CallInput<Input>) {
  return infiniteQueryOptions({
    queryKey: [operation.id, 'pages', input],
    queryFn: ({ signal, pageParam }) => {
      const query = { ...(input as { query?: object }).query, cursor: pageParam } // as: lists take a query with a cursor
      return call(operation, { ...input, query } as CallInput<Input>, { signal }) // as: the same input with its cursor
    },
    initialPageParam: undefined as string | undefined, // as: the first page has no cursor, the others have one
    getNextPageParam: (page) => page.next_cursor ?? undefined,
  })
}

/** Marks what an operation answered as stale; what is on the screen is read again. Without input all its answers. */
export function invalidate<Input, Answer>(
  queryClient: QueryClient,
  operation: Operation<Input, Answer>,
  input?: CallInput<Input>,
): Promise<void> {
  return queryClient.invalidateQueries({ queryKey: queryKey(operation, input) })
}
