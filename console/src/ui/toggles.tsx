import { type ReactNode, type Ref, useId } from 'react'
import { cx } from '@/lib/cx'
import { described } from './field'

interface ToggleProps {
  id?: string
  name?: string
  label: ReactNode
  hint?: ReactNode
  error?: string | undefined
  value: boolean
  onValueChange: (value: boolean) => void
  /** Why it cannot be changed. */
  disabledReason?: string | undefined
  hideLabel?: boolean
  ref?: Ref<HTMLInputElement>
}

function Toggle({
  id,
  name,
  label,
  hint,
  error,
  value,
  onValueChange,
  disabledReason,
  hideLabel = false,
  role,
  className,
  ref,
}: ToggleProps & { role?: 'switch'; className: string }) {
  const made = useId()
  const own = id ?? made
  const more = disabledReason ?? hint
  return (
    <div className="flex min-w-0 gap-2">
      <input
        ref={ref}
        {...described({ id: own, error, hint: more })}
        type="checkbox"
        role={role}
        name={name}
        checked={value}
        disabled={disabledReason !== undefined}
        onChange={(event) => onValueChange(event.target.checked)}
        className={className}
      />
      <div className={cx('min-w-0', hideLabel && 'sr-only')}>
        <label htmlFor={own}>{label}</label>
        {error !== undefined && (
          <p id={`${own}-error`} className="text-sm text-bad">
            {error}
          </p>
        )}
        {more !== undefined && (
          <p id={`${own}-hint`} className="text-sm text-muted">
            {more}
          </p>
        )}
      </div>
    </div>
  )
}

/** Yes or no, taking effect when the form is sent. */
export function Checkbox(props: ToggleProps) {
  return <Toggle {...props} className="checkbox mt-0.5" />
}

/** On or off, taking effect at once. */
export function Switch(props: ToggleProps) {
  return <Toggle {...props} role="switch" className="switch" />
}

/** One of a few, all of them visible. */
export function RadioGroup<Value extends string>({
  label,
  name,
  value,
  onValueChange,
  options,
  hint,
  error,
  inline = false,
}: {
  label: ReactNode
  name?: string
  value: Value
  onValueChange: (value: Value) => void
  options: ReadonlyArray<{ value: Value; label: ReactNode; hint?: ReactNode; disabledReason?: string }>
  hint?: ReactNode
  error?: string | undefined
  inline?: boolean
  id?: string
}) {
  const id = useId()
  return (
    <fieldset
      className="min-w-0"
      aria-describedby={described({ id, error, hint })['aria-describedby']}
      aria-invalid={error !== undefined || undefined}
    >
      <legend className="mb-1 text-sm font-medium">{label}</legend>
      <div className={cx('flex gap-x-5 gap-y-2', inline ? 'flex-wrap' : 'flex-col')}>
        {options.map((one) => (
          <div key={one.value} className="flex min-w-0 gap-2">
            <input
              type="radio"
              id={`${id}-${one.value}`}
              name={name ?? id}
              value={one.value}
              checked={value === one.value}
              disabled={one.disabledReason !== undefined}
              aria-describedby={
                one.hint === undefined && one.disabledReason === undefined
                  ? undefined
                  : `${id}-${one.value}-hint`
              }
              onChange={() => onValueChange(one.value)}
              className="radio mt-0.5"
            />
            <div className="min-w-0">
              <label htmlFor={`${id}-${one.value}`}>{one.label}</label>
              {(one.disabledReason ?? one.hint) !== undefined && (
                <p id={`${id}-${one.value}-hint`} className="text-sm text-muted">
                  {one.disabledReason ?? one.hint}
                </p>
              )}
            </div>
          </div>
        ))}
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
