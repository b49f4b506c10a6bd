import { t } from '@/lib/t'
import { Button } from './button'

/** The end of a list that is read page by page. Takes what `useInfiniteQuery` gives. */
export function LoadMore({
  query,
  shown,
}: {
  query: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown }
  /** What is shown so far, in words: `plural(n, '{count} record', '{count} records')`. */
  shown?: string
}) {
  if (!query.hasNextPage && shown === undefined) return null
  return (
    <div className="flex flex-wrap items-center justify-center gap-3 py-3 text-sm text-muted">
      {shown !== undefined && <span role="status">{shown}</span>}
      {query.hasNextPage && (
        <Button size="small" busy={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
          {t('Load more')}
        </Button>
      )}
    </div>
  )
}
