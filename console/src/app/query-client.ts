import { QueryCache, QueryClient } from '@tanstack/react-query'
import { isProblem } from '@/api/client'
import { forgetGone } from '@/api/gone'

/** The cache of what the server said. Live events keep it fresh; without them it is read again on focus. */
export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: forgetGone }),
  defaultOptions: {
    queries: {
      staleTime: 20_000,
      gcTime: 5 * 60_000,
      retry: (failures, error) =>
        failures < 2 && isProblem(error) && (error.status === 0 || error.status >= 502),
      // A query that waits for the network says so itself; the page goes on showing what it has.
      networkMode: 'always',
    },
    mutations: {
      networkMode: 'always',
    },
  },
})
