import { type ReactNode, useEffect } from 'react'
import { t } from '@/lib/t'
import { Button } from './button'
import { Notice } from './notice'

/** What is asked of a list that is read by pages. */
interface Pages {
  hasNextPage: boolean
  isFetchingNextPage: boolean
  isFetchNextPageError: boolean
  fetchNextPage: () => Promise<unknown>
}

/**
 * Reads the rest of a list at once: search and order are over all of it. Put what it gives above the list: where the rest
 * could not be read it says so, and tries again when told to.
 */
export function useWholeList(pages: Pages): ReactNode {
  const { hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage } = pages
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && !isFetchNextPageError) void fetchNextPage()
  }, [hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage])
  if (!isFetchNextPageError) return null
  return (
    <div role="alert" className="mb-3">
      <Notice
        tone="warn"
        actions={
          <Button busy={isFetchingNextPage} onClick={() => void fetchNextPage()}>
            {t('Try again')}
          </Button>
        }
      >
        {t('The rest of this list could not be read: there is more than what is shown.')}
      </Notice>
    </div>
  )
}
