import { useState } from 'react'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { plainText } from '@/lib/text'

/** How many entries of a list or an object are shown at first. */
const FIRST = 100
/** Texts longer than this are cut; the whole one is in what is copied. */
const LONGEST = 4000

/** Any JSON value as a tree that folds. For hostile values too: everything is text, and everything is bounded. */
export function JsonView({
  value,
  label,
  openDepth = 2,
}: {
  value: unknown
  label: string
  openDepth?: number
}) {
  return (
    <section
      aria-label={label}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      className="id max-h-[32rem] overflow-auto rounded-md border bg-sunken p-3"
    >
      <Node value={value} depth={0} openDepth={openDepth} />
    </section>
  )
}

function Node({
  name,
  value,
  depth,
  openDepth,
}: {
  name?: string
  value: unknown
  depth: number
  openDepth: number
}) {
  const key = name === undefined ? null : <span className="text-muted">{plainText(name, 200)}: </span>
  if (value === null || typeof value !== 'object') {
    return (
      <div className="wrap-anywhere whitespace-pre-wrap">
        {key}
        <Leaf value={value} />
      </div>
    )
  }
  const list = Array.isArray(value)
  const entries = Object.entries(value)
  if (entries.length === 0) {
    return (
      <div>
        {key}
        {list ? '[]' : '{}'}
      </div>
    )
  }
  return <Branch head={key} list={list} entries={entries} depth={depth} openDepth={openDepth} />
}

function Branch({
  head,
  list,
  entries,
  depth,
  openDepth,
}: {
  head: React.ReactNode
  list: boolean
  entries: Array<[string, unknown]>
  depth: number
  openDepth: number
}) {
  const [open, setOpen] = useState(depth < openDepth && entries.length <= FIRST)
  const [most, setMost] = useState(FIRST)
  const count = list
    ? plural(entries.length, '{count} item', '{count} items')
    : plural(entries.length, '{count} field', '{count} fields')
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary className="w-fit rounded select-none">
        {head}
        <span className="text-faint">{list ? `[ ${count} ]` : `{ ${count} }`}</span>
      </summary>
      {open && (
        <div className="ml-1.5 border-l pl-3.5">
          {entries.slice(0, most).map(([name, value]) => (
            <Node key={name} name={name} value={value} depth={depth + 1} openDepth={openDepth} />
          ))}
          {entries.length > most && (
            <button
              type="button"
              className="min-h-6 text-accent underline"
              onClick={() => setMost(most + 1000)}
            >
              {t('Show more of {count}', { count: formatNumber(entries.length) })}
            </button>
          )}
        </div>
      )}
    </details>
  )
}

function Leaf({ value }: { value: unknown }) {
  if (typeof value === 'string') return <span className="text-good">"{plainText(value, LONGEST)}"</span>
  if (typeof value === 'number') return <span className="text-info">{String(value)}</span>
  return <span className="text-warn">{String(value)}</span>
}
