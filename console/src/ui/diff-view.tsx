import { useState } from 'react'
import { cx } from '@/lib/cx'
import { type DiffLine, diffLines } from '@/lib/diff'
import { plural, t } from '@/lib/t'
import { plainText } from '@/lib/text'

/** Equal lines around a change that stay visible. */
const AROUND = 3
const SIGN = { same: ' ', added: '+', removed: '−' }
const LOOK = { same: '', added: 'bg-good-soft', removed: 'bg-bad-soft' }

/** Two texts compared line by line; equal parts fold. */
export function DiffView({ before, after, label }: { before: string; after: string; label: string }) {
  const lines = diffLines(before, after)
  if (lines.every((line) => line.kind === 'same')) return <p className="text-muted">{t('Nothing differs')}</p>
  return (
    <section
      aria-label={label}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      className="id max-h-[36rem] overflow-auto rounded-md border bg-sunken py-1"
    >
      {folded(lines).map((part) => (
        <Part key={`${part.lines[0]?.before}-${part.lines[0]?.after}`} part={part} />
      ))}
    </section>
  )
}

interface DiffPart {
  lines: DiffLine[]
  folded: boolean
}

function Part({ part }: { part: DiffPart }) {
  const [open, setOpen] = useState(!part.folded)
  if (!open) {
    return (
      <button
        type="button"
        onClick={() => setOpen(true)}
        className="block min-h-6 w-full px-3 text-left text-faint hover:bg-hover"
      >
        {plural(part.lines.length, '{count} equal line', '{count} equal lines')}
      </button>
    )
  }
  return part.lines.map((line) => (
    <div key={`${line.before}-${line.after}`} className={cx('flex', LOOK[line.kind])}>
      <span aria-hidden="true" className="w-10 shrink-0 px-1 text-right text-faint select-none">
        {line.after ?? line.before}
      </span>
      <span className="w-5 shrink-0 text-center select-none">
        <span aria-hidden="true">{SIGN[line.kind]}</span>
        {line.kind !== 'same' && (
          <span className="sr-only">{line.kind === 'added' ? t('added') : t('removed')}</span>
        )}
      </span>
      <span className="min-w-0 flex-1 pr-3 wrap-anywhere whitespace-pre-wrap">{plainText(line.text)}</span>
    </div>
  ))
}

function folded(lines: DiffLine[]): DiffPart[] {
  const near = lines.map((_, at) =>
    lines.slice(Math.max(0, at - AROUND), at + AROUND + 1).some((line) => line.kind !== 'same'),
  )
  const parts: DiffPart[] = []
  for (const [at, line] of lines.entries()) {
    const fold = !near[at]
    const last = parts.at(-1)
    if (last?.folded === fold) last.lines.push(line)
    else parts.push({ lines: [line], folded: fold })
  }
  return parts
}
