import type { ReactNode } from 'react'
import { useId } from 'react'
import { cx } from '@/lib/cx'

/** A framed part of a page. With a title it is a region of that name. `flush` leaves out the padding, for tables. */
export function Card({
  title,
  description,
  actions,
  children,
  flush = false,
  className,
}: {
  title?: ReactNode
  description?: ReactNode
  actions?: ReactNode
  children?: ReactNode
  flush?: boolean
  className?: string
}) {
  const id = useId()
  return (
    <section
      aria-labelledby={title === undefined ? undefined : id}
      className={cx('min-w-0 rounded-lg border bg-surface', className)}
    >
      {title !== undefined && (
        <div className="flex min-h-11 flex-wrap items-center justify-between gap-x-4 gap-y-1 border-b px-pad py-2">
          <div className="min-w-0">
            <h2 id={id} className="text-base font-semibold">
              {title}
            </h2>
            {description !== undefined && <p className="text-sm text-muted">{description}</p>}
          </div>
          {actions !== undefined && <div className="flex flex-wrap items-center gap-1.5">{actions}</div>}
        </div>
      )}
      <div className={flush ? 'min-w-0 overflow-clip rounded-b-lg' : 'p-pad'}>{children}</div>
    </section>
  )
}
