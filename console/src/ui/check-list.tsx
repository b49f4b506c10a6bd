import { type ReactNode, useId, useState } from 'react'
import { plural, t } from '@/lib/t'
import { SearchInput } from './search-input'
import { Checkbox } from './toggles'

/** From this many options on there is a search. */
const SEARCH_FROM = 9

/** Any number of many, all of them visible in a box that scrolls; with a search when there are more than a few. */
export function CheckList<Value extends string>({
  label,
  value,
  onValueChange,
  options,
  hint,
  error,
  empty,
}: {
  label: string
  value: readonly Value[]
  onValueChange: (value: Value[]) => void
  options: ReadonlyArray<{
    value: Value
    label: ReactNode
    /** What the search looks at, where the label is no text. */
    text?: string
    hint?: string
    disabledReason?: string | undefined
  }>
  hint?: ReactNode
  error?: string | undefined
  /** Shown when there are no options. */
  empty?: ReactNode
}) {
  const id = useId()
  const [search, setSearch] = useState('')
  const wanted = search.trim().toLowerCase()
  const shown = options.filter((one) =>
    `${one.text ?? one.value} ${one.hint ?? ''}`.toLowerCase().includes(wanted),
  )
  return (
    <fieldset
      className="min-w-0"
      aria-invalid={error !== undefined || undefined}
      aria-describedby={error !== undefined ? `${id}-error` : hint !== undefined ? `${id}-hint` : undefined}
    >
      <legend className="mb-1 flex w-full items-baseline justify-between gap-2 text-sm font-medium">
        {label}
        <span role="status" className="font-normal text-muted">
          {plural(value.length, '{count} chosen', '{count} chosen')}
        </span>
      </legend>
      <div className="rounded-md border bg-surface">
        {options.length >= SEARCH_FROM && (
          <div className="border-b p-2">
            <SearchInput
              label={t('Search in: {label}', { label })}
              placeholder={t('Search')}
              value={search}
              onValueChange={setSearch}
              className="max-w-none!"
            />
          </div>
        )}
        <div className="flex max-h-56 flex-col gap-2 overflow-y-auto p-3">
          {shown.map((one) => (
            <Checkbox
              key={one.value}
              label={one.label}
              hint={one.hint}
              disabledReason={one.disabledReason}
              value={value.includes(one.value)}
              onValueChange={(on) =>
                onValueChange(on ? [...value, one.value] : value.filter((other) => other !== one.value))
              }
            />
          ))}
          {shown.length === 0 && (
            <p className="text-muted">
              {options.length === 0 && empty !== undefined ? empty : t('Nothing fits')}
            </p>
          )}
        </div>
      </div>
      {error !== undefined && (
        <p id={`${id}-error`} className="mt-1 text-sm text-bad">
          {error}
        </p>
      )}
      {hint !== undefined && (
        <p id={`${id}-hint`} className="mt-1 text-sm text-muted">
          {hint}
        </p>
      )}
    </fieldset>
  )
}
