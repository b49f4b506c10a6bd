import { cx } from '@/lib/cx'

/** The shape of some numbers over time, in a line of text. The numbers themselves must stand in `label` or beside it. */
export function SparkLine({
  values,
  label,
  tone = 'accent',
  className,
}: {
  values: readonly number[]
  label: string
  tone?: 'accent' | 'bad' | 'muted'
  className?: string
}) {
  const highest = Math.max(...values, 1)
  const step = values.length > 1 ? 100 / (values.length - 1) : 100
  const points = values.map(
    (value, index) => `${(index * step).toFixed(2)},${(23 - (Math.max(0, value) / highest) * 22).toFixed(2)}`,
  )
  const colour = { accent: 'text-accent', bad: 'text-bad', muted: 'text-faint' }[tone]
  return (
    <svg
      role="img"
      aria-label={label}
      viewBox="0 0 100 24"
      preserveAspectRatio="none"
      className={cx('h-6 w-full', colour, className)}
    >
      {points.length > 1 && (
        <>
          <polygon points={`0,24 ${points.join(' ')} 100,24`} fill="currentColor" opacity="0.12" />
          <polyline
            points={points.join(' ')}
            fill="none"
            stroke="currentColor"
            strokeWidth="1.5"
            vectorEffect="non-scaling-stroke"
          />
        </>
      )}
    </svg>
  )
}
