import { Check, ChevronDown } from 'lucide-react'
import { type KeyboardEvent, useState } from 'react'
import { cx } from '@/lib/cx'
import { plural, t } from '@/lib/t'
import { type ControlProps, described, Field, fieldOf } from './field'
import { LiveRegion } from './live-region'

/** One of a combobox's options. */
export interface ComboboxOption {
  value: string
  label: string
  hint?: string
}

/** More than this fit: the first ones are shown, and typing finds the others. */
const MOST_SHOWN = 100

/**
 * One of many, found by typing. For a few options use `Select`. Our own, and not Base UI's, which hides the rest of the
 * page from screen readers while its list is open.
 */
export function Combobox(
  props: ControlProps & {
    value: string
    onValueChange: (value: string) => void
    options: readonly ComboboxOption[]
    placeholder?: string
    mono?: boolean
    disabled?: boolean
  },
) {
  const [field, { value, onValueChange, options, placeholder, mono = false, disabled = false, name }] =
    fieldOf(props)
  const [typed, setTyped] = useState<string>()
  const [open, setOpen] = useState(false)
  const [at, setAt] = useState(0)
  const chosen = options.find((one) => one.value === value)
  const wanted = (typed ?? '').trim().toLowerCase()
  const fitting =
    wanted === ''
      ? options
      : options.filter((one) => `${one.label} ${one.hint ?? ''}`.toLowerCase().includes(wanted))
  const shown = fitting.slice(0, MOST_SHOWN)
  const place = Math.min(at, shown.length - 1)
  const listId = `${field.id}-list`
  const optionId = (index: number) => `${field.id}-option-${index}`

  const show = () => {
    if (disabled || open) return
    setAt(
      Math.max(0, wanted === '' ? options.slice(0, MOST_SHOWN).findIndex((one) => one.value === value) : 0),
    )
    setOpen(true)
  }
  const close = () => {
    setOpen(false)
    setTyped(undefined)
  }
  const choose = (option: ComboboxOption | undefined) => {
    if (option !== undefined) onValueChange(option.value)
    close()
  }
  const move = (step: number) => {
    const next = (place + step + shown.length) % Math.max(1, shown.length)
    setAt(next)
    document.getElementById(optionId(next))?.scrollIntoView({ block: 'nearest' })
  }
  const press = (event: KeyboardEvent) => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault()
      if (open) move(event.key === 'ArrowDown' ? 1 : -1)
      else show()
    } else if (event.key === 'Enter' && open) {
      event.preventDefault()
      choose(shown[place])
    } else if (event.key === 'Escape' && open) {
      event.preventDefault()
      event.stopPropagation()
      close()
    }
  }
  const leave = () => {
    if (!open && typed === undefined) return
    // What was typed to its end is chosen; anything else is put back.
    const exact = shown.find((one) => one.label.toLowerCase() === wanted)
    if (typed === '') onValueChange('')
    choose(exact)
  }
  return (
    <Field {...field}>
      <div className="relative">
        <input
          {...described(field)}
          type="text"
          role="combobox"
          name={name}
          aria-autocomplete="list"
          aria-expanded={open && shown.length > 0}
          aria-controls={open && shown.length > 0 ? listId : undefined}
          aria-activedescendant={open && place >= 0 ? optionId(place) : undefined}
          autoComplete="off"
          spellCheck={false}
          disabled={disabled}
          placeholder={placeholder}
          value={typed ?? chosen?.label ?? value}
          onChange={(event) => {
            setTyped(event.target.value)
            setAt(0)
            setOpen(true)
          }}
          onClick={show}
          onBlur={leave}
          onKeyDown={press}
          className={cx('control pr-8', mono && 'id')}
        />
        <ChevronDown
          aria-hidden="true"
          className="pointer-events-none absolute top-1/2 right-2.5 size-4 -translate-y-1/2 text-muted"
        />
        {open && (
          <div className="absolute inset-x-0 top-full z-30 mt-1 rounded-lg border bg-raised p-1 shadow-lift">
            {shown.length > 0 && (
              <div
                id={listId}
                role="listbox"
                tabIndex={-1}
                aria-label={t('Options')}
                // The focus stays in the input, also when the list is scrolled.
                onPointerDown={(event) => event.preventDefault()}
                onMouseDown={(event) => event.preventDefault()}
                className="max-h-64 overflow-y-auto"
              >
                {shown.map((option, index) => (
                  // biome-ignore lint/a11y/useKeyWithClickEvents: the keys are heard by the input, which keeps the focus.
                  // biome-ignore lint/a11y/useFocusableInteractive: the option is pointed at by aria-activedescendant.
                  <div
                    key={option.value}
                    id={optionId(index)}
                    role="option"
                    aria-selected={option.value === value}
                    onPointerMove={() => setAt(index)}
                    onClick={() => choose(option)}
                    className={cx(
                      'flex min-h-control-small cursor-default items-center gap-2 rounded px-2 py-1 select-none',
                      index === place && 'bg-pressed',
                    )}
                  >
                    <span className="min-w-0 flex-1">
                      <span className={cx('block truncate', mono && 'id')}>{option.label}</span>
                      {option.hint !== undefined && (
                        <span className="block truncate text-sm text-muted">{option.hint}</span>
                      )}
                    </span>
                    {option.value === value && (
                      <Check aria-hidden="true" className="size-4 shrink-0 text-accent" />
                    )}
                  </div>
                ))}
              </div>
            )}
            {shown.length === 0 && (
              <p className="px-2 py-3 text-center text-sm text-muted">{t('Nothing fits')}</p>
            )}
            {fitting.length > shown.length && (
              <p className="px-2 py-1.5 text-sm text-muted">{t('Type to find the others')}</p>
            )}
          </div>
        )}
        <LiveRegion>{open ? plural(fitting.length, '{count} result', '{count} results') : ''}</LiveRegion>
      </div>
    </Field>
  )
}
