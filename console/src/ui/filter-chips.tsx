import { cx } from '@/lib/cx'
import { formatNumber } from '@/lib/format'

/** Filters that are all visible: none, one or several of them are on. Keep them in the URL. */
export function FilterChips<Value extends string>({
  label,
  options,
  chosen,
  onChange,
  multiple = false,
}: {
  label: string
  options: ReadonlyArray<{ value: Value; label: string; count?: number | undefined }>
  chosen: readonly Value[]
  onChange: (chosen: Value[]) => void
  multiple?: boolean
}) {
  const toggle = (value: Value) => {
    const on = chosen.includes(value)
    if (multiple) onChange(on ? chosen.filter((one) => one !== value) : [...chosen, value])
    else onChange(on ? [] : [value])
  }
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for what is sent with a form.
    <div role="group" aria-label={label} className="flex flex-wrap gap-1.5">
      {options.map((option) => {
        const on = chosen.includes(option.value)
        return (
          <button
            key={option.value}
            type="button"
            aria-pressed={on}
            onClick={() => toggle(option.value)}
            className={cx(
              'inline-flex min-h-control-small items-center gap-1.5 rounded-full border px-2.5 text-sm transition-colors',
              on
                ? 'border-accent bg-accent-soft text-accent'
                : 'text-muted hover:border-line-strong hover:text-text',
            )}
          >
            {option.label}
            {option.count !== undefined && <span className="tabular">{formatNumber(option.count)}</span>}
          </button>
        )
      })}
    </div>
  )
}
