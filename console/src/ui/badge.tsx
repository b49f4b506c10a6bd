import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'

export type Tone = 'neutral' | 'accent' | 'good' | 'warn' | 'bad' | 'info'

const LOOK: Record<Tone, string> = {
  neutral: 'border-line bg-sunken text-muted',
  accent: 'border-transparent bg-accent-soft text-accent',
  good: 'border-transparent bg-good-soft text-good',
  warn: 'border-transparent bg-warn-soft text-warn',
  bad: 'border-transparent bg-bad-soft text-bad',
  info: 'border-transparent bg-info-soft text-info',
}

/** A short fact about a thing: its kind, a version, a count. For a state use `Status`. */
export function Badge({
  tone = 'neutral',
  mono = false,
  children,
  title,
}: {
  tone?: Tone
  mono?: boolean
  children: ReactNode
  title?: string
}) {
  return (
    <span
      title={title}
      className={cx(
        'inline-flex max-w-full items-center gap-1 truncate rounded border px-1.5 text-xs leading-[18px]',
        mono && 'id',
        LOOK[tone],
      )}
    >
      {children}
    </span>
  )
}
