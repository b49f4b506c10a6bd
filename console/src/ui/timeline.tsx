import { CircleCheck, CircleDashed, CircleX, TriangleAlert } from 'lucide-react'
import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { formatClock, formatTime, instant } from '@/lib/format'
import { t } from '@/lib/t'
import { Spinner } from './spinner'

/** A step of a timeline. */
export interface TimelineStep {
  id: string
  kind: 'done' | 'working' | 'waiting' | 'warn' | 'bad'
  title: ReactNode
  detail?: ReactNode
  at?: string | undefined
}

const LOOK = {
  done: { icon: CircleCheck, className: 'text-good', text: () => t('done') },
  working: { icon: undefined, className: 'text-info', text: () => t('under way') },
  waiting: { icon: CircleDashed, className: 'text-faint', text: () => t('not yet') },
  warn: { icon: TriangleAlert, className: 'text-warn', text: () => t('warning') },
  bad: { icon: CircleX, className: 'text-bad', text: () => t('failed') },
}

/** What happened, step by step, the first step first. With `live` new steps are spoken. */
export function Timeline({
  label,
  steps,
  live = false,
}: {
  label: string
  steps: readonly TimelineStep[]
  live?: boolean
}) {
  return (
    <ol aria-label={label} aria-live={live ? 'polite' : undefined} className="flex flex-col">
      {steps.map((step, index) => {
        const { icon: Icon, className, text } = LOOK[step.kind]
        return (
          <li key={step.id} className="relative flex gap-3 pb-4 last:pb-0">
            {index < steps.length - 1 && (
              <span aria-hidden="true" className="absolute top-5 bottom-0 left-[7px] w-px bg-line" />
            )}
            <span className={cx('mt-0.5 inline-flex shrink-0', className)}>
              {Icon === undefined ? <Spinner /> : <Icon aria-hidden="true" className="size-4" />}
              <span className="sr-only">{text()}: </span>
            </span>
            <div className="min-w-0 flex-1">
              <p className={step.kind === 'waiting' ? 'text-muted' : undefined}>{step.title}</p>
              {step.detail !== undefined && <div className="mt-0.5 text-sm text-muted">{step.detail}</div>}
            </div>
            {instant(step.at) !== undefined && step.at !== undefined && (
              <time
                dateTime={step.at}
                title={formatTime(step.at)}
                className="tabular shrink-0 text-sm text-faint"
              >
                {formatClock(step.at).slice(0, 8)}
              </time>
            )}
          </li>
        )
      })}
    </ol>
  )
}
