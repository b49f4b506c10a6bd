import { Combobox as Base } from '@base-ui/react/combobox'
import { Check, ChevronDown } from 'lucide-react'
import { t } from '@/lib/t'
import { type ControlProps, described, Field, fieldOf } from './field'

/** One of a combobox's options. */
export interface ComboboxOption {
  value: string
  label: string
  hint?: string
}

/** One of many, found by typing. For a few options use `Select`. */
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
  const [field, { value, onValueChange, options, placeholder, mono, disabled = false, name }] = fieldOf(props)
  const chosen = options.find((one) => one.value === value) ?? null
  return (
    <Field {...field}>
      <Base.Root
        items={options}
        value={chosen}
        onValueChange={(option) => onValueChange(option?.value ?? '')}
        itemToStringLabel={(option) => option.label}
        isItemEqualToValue={(one, other) => one.value === other.value}
        disabled={disabled}
        autoHighlight
      >
        <div className="relative">
          <Base.Input
            {...described(field)}
            name={name}
            placeholder={placeholder}
            spellCheck={false}
            className={mono ? 'control id pr-8' : 'control pr-8'}
          />
          <Base.Trigger
            aria-label={t('Show the options')}
            className="absolute inset-y-0 right-0 flex w-8 items-center justify-center rounded text-muted hover:text-text"
          >
            <ChevronDown aria-hidden="true" className="size-4" />
          </Base.Trigger>
        </div>
        <Base.Portal>
          <Base.Positioner sideOffset={4} collisionPadding={8} className="z-50 outline-none">
            <Base.Popup className="floating max-h-[min(20rem,var(--available-height))] w-[var(--anchor-width)] overflow-y-auto p-1">
              <Base.Empty className="px-2 py-3 text-center text-sm text-muted empty:hidden">
                {t('Nothing fits')}
              </Base.Empty>
              <Base.List>
                {(option: ComboboxOption) => (
                  <Base.Item
                    key={option.value}
                    value={option}
                    className="flex min-h-control-small cursor-default items-center gap-2 rounded px-2 py-1 outline-none select-none data-[highlighted]:bg-hover"
                  >
                    <span className="min-w-0 flex-1">
                      <span className={mono ? 'id block truncate' : 'block truncate'}>{option.label}</span>
                      {option.hint !== undefined && (
                        <span className="block truncate text-sm text-muted">{option.hint}</span>
                      )}
                    </span>
                    <Base.ItemIndicator>
                      <Check aria-hidden="true" className="size-4 text-accent" />
                    </Base.ItemIndicator>
                  </Base.Item>
                )}
              </Base.List>
            </Base.Popup>
          </Base.Positioner>
        </Base.Portal>
      </Base.Root>
    </Field>
  )
}
