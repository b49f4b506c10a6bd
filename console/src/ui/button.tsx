import type { LucideIcon } from 'lucide-react'
import { type ButtonHTMLAttributes, type MouseEvent, type ReactNode, type Ref, useId } from 'react'
import { cx } from '@/lib/cx'
import { Spinner } from './spinner'
import { Tooltip } from './tooltip'

export type ButtonVariant = 'primary' | 'secondary' | 'ghost' | 'danger'
export type ButtonSize = 'small' | 'medium'

const LOOK: Record<ButtonVariant, string> = {
  primary: 'bg-accent-fill text-on-accent border-transparent hover:bg-accent-fill-hover',
  secondary: 'bg-surface text-text border-line-strong/60 hover:bg-hover active:bg-pressed',
  ghost: 'bg-transparent text-text border-transparent hover:bg-hover active:bg-pressed',
  danger: 'bg-bad-fill text-on-bad border-transparent hover:opacity-90',
}

/** The classes of a button, for links that look like one. */
export function buttonClass(variant: ButtonVariant = 'secondary', size: ButtonSize = 'medium'): string {
  return cx(
    'inline-flex shrink-0 items-center justify-center gap-1.5 rounded-md border font-medium whitespace-nowrap select-none',
    'transition-colors duration-100 aria-disabled:opacity-55',
    size === 'small' ? 'min-h-control-small px-2 text-sm' : 'min-h-control px-3',
    LOOK[variant],
  )
}

export interface ButtonProps extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, 'disabled'> {
  variant?: ButtonVariant
  size?: ButtonSize
  icon?: LucideIcon
  /** It is being done: shows a spinner, keeps the name, takes no further press. */
  busy?: boolean
  /** Why it cannot be pressed. The button stays reachable, so that the reason can be read. */
  disabledReason?: string | undefined
  ref?: Ref<HTMLButtonElement>
}

/** A button. `disabledReason` instead of `disabled`: nobody should have to guess. */
export function Button({
  variant,
  size,
  icon: Icon,
  busy = false,
  disabledReason,
  children,
  className,
  onClick,
  type = 'button',
  ...rest
}: ButtonProps) {
  const reasonId = useId()
  const off = busy || disabledReason !== undefined
  const press = (event: MouseEvent<HTMLButtonElement>) => {
    if (off) event.preventDefault()
    else onClick?.(event)
  }
  const button = (
    <button
      {...rest}
      type={type}
      className={cx(buttonClass(variant, size), className)}
      aria-disabled={off || undefined}
      aria-busy={busy || undefined}
      aria-describedby={disabledReason === undefined ? rest['aria-describedby'] : reasonId}
      onClick={press}
    >
      {busy ? (
        <Spinner className="-ml-0.5 size-4" />
      ) : (
        Icon && <Icon aria-hidden="true" className="-ml-0.5 size-4" />
      )}
      {children}
    </button>
  )
  // The same with and without a reason: a button that was pressed and cannot be pressed again keeps the focus.
  return (
    <>
      <Tooltip text={disabledReason} off={disabledReason === undefined}>
        {button}
      </Tooltip>
      {disabledReason !== undefined && (
        <span id={reasonId} hidden>
          {disabledReason}
        </span>
      )}
    </>
  )
}

/** A button that is only an icon: its `label` is its name and its tooltip. */
export function IconButton({
  icon: Icon,
  label,
  size = 'medium',
  variant = 'ghost',
  disabledReason,
  busy = false,
  className,
  onClick,
  ...rest
}: Omit<ButtonProps, 'children' | 'icon'> & { icon: LucideIcon; label: string }) {
  const off = busy || disabledReason !== undefined
  const text: ReactNode = disabledReason === undefined ? label : `${label}: ${disabledReason}`
  return (
    <Tooltip
      text={text}
      off={rest['aria-haspopup'] !== undefined && String(rest['aria-expanded']) === 'true'}
    >
      <button
        type="button"
        {...rest}
        aria-label={label}
        aria-disabled={off || undefined}
        className={cx(
          'inline-flex shrink-0 items-center justify-center rounded-md border text-muted hover:text-text aria-disabled:opacity-50',
          'transition-colors duration-100',
          size === 'small' ? 'size-control-small' : 'size-control',
          LOOK[variant],
          className,
        )}
        onClick={(event) => {
          if (off) event.preventDefault()
          else onClick?.(event)
        }}
      >
        {busy ? <Spinner /> : <Icon aria-hidden="true" className="size-4" />}
      </button>
    </Tooltip>
  )
}
