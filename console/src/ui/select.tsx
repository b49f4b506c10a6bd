import { ChevronDown } from 'lucide-react'
import type { SelectHTMLAttributes } from 'react'
import { type ControlProps, described, Field, fieldOf } from './field'

/** One of a select's options. */
export interface Option<Value extends string> {
  value: Value
  label: string
  disabled?: boolean
}

type Own = keyof ControlProps | 'value' | 'onChange' | 'onValueChange' | 'children'

/** One of a few: the platform's own control, which phones and screen readers know best. For many use `Combobox`. */
export function Select<Value extends string>(
  props: ControlProps &
    Omit<SelectHTMLAttributes<HTMLSelectElement>, Own> & {
      value: Value
      onValueChange: (value: Value) => void
      options: readonly Option<Value>[]
    },
) {
  const [field, { value, onValueChange, options, ...rest }] = fieldOf(props)
  return (
    <Field {...field}>
      <div className="relative">
        <select
          {...rest}
          {...described(field)}
          value={value}
          onChange={(event) => {
            const chosen = options.find((one) => one.value === event.target.value)
            if (chosen !== undefined) onValueChange(chosen.value)
          }}
          className="control appearance-none pr-8 text-ellipsis"
        >
          {options.map((one) => (
            <option key={one.value} value={one.value} disabled={one.disabled}>
              {one.label}
            </option>
          ))}
        </select>
        <ChevronDown
          aria-hidden="true"
          className="pointer-events-none absolute top-1/2 right-2.5 size-4 -translate-y-1/2 text-muted"
        />
      </div>
    </Field>
  )
}
