import { cx } from '@/lib/cx'
import { parseAnsi } from '@/lib/text'

/** A line of a log with its terminal colours. Sequences that do anything else are gone. */
export function AnsiText({ line }: { line: string }) {
  return parseAnsi(line).map((span, place) => (
    <span
      // biome-ignore lint/suspicious/noArrayIndexKey: a span is its place in the line.
      key={place}
      className={cx(
        span.foreground !== undefined && `ansi-${span.foreground}`,
        span.background !== undefined && 'rounded-xs bg-pressed',
        span.bold && 'font-semibold',
        span.dim && 'opacity-80',
        span.italic && 'italic',
        span.underline && 'underline',
      )}
    >
      {span.text}
    </span>
  ))
}
