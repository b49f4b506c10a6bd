import { CircleAlert, Info, TriangleAlert } from 'lucide-react'
import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'

const LOOK = {
  info: { icon: Info, box: 'border-info/30 bg-info-soft', colour: 'text-info' },
  warn: { icon: TriangleAlert, box: 'border-warn/30 bg-warn-soft', colour: 'text-warn' },
  bad: { icon: CircleAlert, box: 'border-bad/35 bg-bad-soft', colour: 'text-bad' },
}

/** Something to know about what is shown below it. Not for results of actions: those are toasts. */
export function Notice({
  tone = 'info',
  title,
  children,
  actions,
}: {
  tone?: 'info' | 'warn' | 'bad'
  title?: ReactNode
  children?: ReactNode
  actions?: ReactNode
}) {
  const { icon: Icon, box, colour } = LOOK[tone]
  return (
    <div className={cx('flex flex-wrap items-start gap-x-3 gap-y-2 rounded-lg border px-3 py-2.5', box)}>
      <Icon aria-hidden="true" className={cx('mt-0.5 size-4 shrink-0', colour)} />
      <div className="min-w-0 flex-1 basis-60">
        {title !== undefined && <p className="font-medium">{title}</p>}
        {children !== undefined && (
          <div className={title === undefined ? undefined : 'mt-0.5 text-muted'}>{children}</div>
        )}
      </div>
      {actions !== undefined && <div className="flex gap-2">{actions}</div>}
    </div>
  )
}
