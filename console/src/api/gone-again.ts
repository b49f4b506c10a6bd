import type { QueryClient } from '@tanstack/react-query'
import { hasUnsaved, watchUnsaved } from '@/lib/form'
import { isGone } from './gone'

/**
 * Takes away what is gone and stayed only for the sake of something typed, as soon as nothing is: what a page shows of it
 * is read again, and what none shows is read when one does. Gives the function that ends it. Apart from `gone.ts`, which
 * is part of the first load.
 */
export function readGoneAgain(client: QueryClient): () => void {
  return watchUnsaved(() => {
    if (hasUnsaved()) return
    void client.resetQueries({
      predicate: ({ state }) => state.data !== undefined && isGone(state.error),
    })
  })
}
