import type { ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { t } from '@/lib/t'

/** What every labelled control takes. */
export interface ControlProps {
  id: string
  label: ReactNode
  name?: string
  error?: string | undefined
  hint?: ReactNode
  /** `false` says "optional" at the label; `true` says so to screen readers. */
  required?: boolean
  /** More at the label's end, such as a link. */
  aside?: ReactNode
  /** The label is there for screen readers only. */
  hideLabel?: boolean
  /** Of the whole field. */
  className?: string
}

/** Takes the field's own properties apart from its control's. `name` goes to the control. */
export function fieldOf<Props extends ControlProps>(
  props: Props,
): [Omit<ControlProps, 'name'>, Omit<Props, Exclude<keyof ControlProps, 'name'>>] {
  const { id, label, error, hint, required, aside, hideLabel, className, ...rest } = props
  const field: Omit<ControlProps, 'name'> = { id, label, error, hint }
  if (required !== undefined) field.required = required
  if (aside !== undefined) field.aside = aside
  if (hideLabel !== undefined) field.hideLabel = hideLabel
  if (className !== undefined) field.className = className
  return [field, rest]
}

/** The attributes that tie a control to its label, hint and error. */
export function described({
  id,
  error,
  required,
  hint,
}: Pick<ControlProps, 'id' | 'error' | 'required' | 'hint'>) {
  const ids = [error !== undefined && `${id}-error`, hint !== undefined && `${id}-hint`]
    .filter(Boolean)
    .join(' ')
  return {
    id,
    'aria-invalid': error !== undefined || undefined,
    'aria-describedby': ids === '' ? undefined : ids,
    'aria-required': required || undefined,
  }
}

/** Label, control, error and hint. Controls such as `TextInput` bring it along. */
export function Field({
  id,
  label,
  hint,
  error,
  required,
  aside,
  className,
  hideLabel = false,
  children,
}: Omit<ControlProps, 'name'> & { children: ReactNode }) {
  return (
    <div className={cx('flex min-w-0 flex-col gap-1', className)}>
      <div className={cx('flex items-baseline justify-between gap-2', hideLabel && 'sr-only')}>
        <label htmlFor={id} className="text-sm font-medium">
          {label}
        </label>
        {required === false && <span className="text-xs text-faint">{t('optional')}</span>}
        {aside}
      </div>
      {children}
      {error !== undefined && (
        <p id={`${id}-error`} className="text-sm text-bad">
          {error}
        </p>
      )}
      {hint !== undefined && (
        <p id={`${id}-hint`} className="text-sm text-muted">
          {hint}
        </p>
      )}
    </div>
  )
}
