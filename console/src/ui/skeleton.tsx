import { cx } from '@/lib/cx'
import { t } from '@/lib/t'

/** A place that is kept for what is loading: give it the size of what comes (`h-5 w-40`). */
export function Skeleton({ className }: { className?: string }) {
  return <span aria-hidden="true" className={cx('skeleton block', className)} />
}

const WIDTHS = ['w-3/5', 'w-4/5', 'w-2/5', 'w-3/4', 'w-1/2']

/** Lines that are loading, as tall as rows of a table when `rows` is set, else as lines of text. */
export function SkeletonLines({ count = 3, rows = false }: { count?: number; rows?: boolean }) {
  return (
    <div role="status">
      <span className="sr-only">{t('Loading')}</span>
      {Array.from({ length: count }, (_, line) => line).map((line) => (
        <div
          key={line}
          className={cx('flex items-center', rows ? 'h-row border-b px-3 last:border-b-0' : 'h-5')}
        >
          <Skeleton className={cx('h-3', WIDTHS[line % WIDTHS.length])} />
        </div>
      ))}
    </div>
  )
}
