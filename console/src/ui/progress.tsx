import { cx } from '@/lib/cx'
import { formatPercent } from '@/lib/format'

/** How far something is; without `value` that is not known. */
export function Progress({
  label,
  value,
  max = 1,
  text,
}: {
  label: string
  value?: number | undefined
  max?: number
  text?: string
}) {
  const share = value === undefined || max <= 0 ? undefined : Math.min(1, Math.max(0, value / max))
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={share === undefined ? undefined : Math.round(share * 100)}
      aria-valuetext={text}
      className="h-1.5 overflow-hidden rounded-full bg-pressed"
    >
      <div
        className={cx(
          'h-full rounded-full bg-accent-fill transition-[width] duration-200',
          share === undefined && 'w-1/3 animate-[slide_1.4s_ease-in-out_infinite]',
        )}
        style={share === undefined ? undefined : { width: `${share * 100}%` }}
      />
    </div>
  )
}

/** How much of a limit is used. From `warnFrom` on it is coloured, and the text says the numbers anyway. */
export function Meter({
  label,
  value,
  max,
  text,
  warnFrom = 0.85,
  hideLabel = false,
}: {
  label: string
  value: number
  max: number
  /** The numbers in words: `212 MiB of 512 MiB`. */
  text: string
  warnFrom?: number
  hideLabel?: boolean
}) {
  const share = max > 0 ? Math.min(1, Math.max(0, value / max)) : 0
  return (
    <div className="min-w-0">
      <div className="mb-1 flex items-baseline justify-between gap-3 text-sm">
        <span className={hideLabel ? 'sr-only' : 'text-muted'}>{label}</span>
        <span className="tabular truncate">
          {text} <span className="text-faint">{formatPercent(share)}</span>
        </span>
      </div>
      {/* biome-ignore lint/a11y/useSemanticElements: the native meter cannot be styled the same in all browsers. */}
      <div
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={max}
        aria-valuenow={value}
        aria-valuetext={text}
        className="h-1.5 overflow-hidden rounded-full bg-pressed"
      >
        <div
          className={cx('h-full rounded-full', share >= warnFrom ? 'bg-warn' : 'bg-accent-fill')}
          style={{ width: `${share * 100}%` }}
        />
      </div>
    </div>
  )
}
