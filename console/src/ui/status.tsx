import {
  CircleAlert,
  CircleCheck,
  CircleDashed,
  CirclePause,
  CircleX,
  type LucideIcon,
  TriangleAlert,
} from 'lucide-react'
import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { Spinner } from './spinner'

/** How good something is, in the order of how much it needs a look. */
export type StatusKind = 'good' | 'working' | 'waiting' | 'off' | 'warn' | 'bad' | 'unknown'

const LOOK: Record<StatusKind, { icon: LucideIcon | undefined; className: string }> = {
  good: { icon: CircleCheck, className: 'text-good' },
  working: { icon: undefined, className: 'text-info' },
  waiting: { icon: CircleDashed, className: 'text-muted' },
  off: { icon: CirclePause, className: 'text-muted' },
  warn: { icon: TriangleAlert, className: 'text-warn' },
  bad: { icon: CircleX, className: 'text-bad' },
  unknown: { icon: CircleAlert, className: 'text-muted' },
}

/** A state as icon, text and colour; never as colour alone. `wraps`: for a sentence, where there may be little room. */
export function Status({
  kind,
  children,
  wraps = false,
  className,
}: {
  kind: StatusKind
  children: ReactNode
  wraps?: boolean
  className?: string
}) {
  const { icon: Icon, className: colour } = LOOK[kind]
  return (
    <span
      className={cx(
        'inline-flex gap-1.5',
        wraps ? 'items-start whitespace-normal' : 'items-center whitespace-nowrap',
        className,
      )}
    >
      <span className={cx('inline-flex shrink-0', wraps && 'mt-1', colour)}>
        {Icon === undefined ? (
          <Spinner className="size-3.5" />
        ) : (
          <Icon aria-hidden="true" className="size-3.5" strokeWidth={2.25} />
        )}
      </span>
      <span>{children}</span>
    </span>
  )
}
