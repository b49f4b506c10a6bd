import { createLink } from '@tanstack/react-router'
import { ExternalLink as ExternalIcon, type LucideIcon } from 'lucide-react'
import type { AnchorHTMLAttributes, ReactNode, Ref } from 'react'
import { cx } from '@/lib/cx'
import { safeUrl } from '@/lib/safe-url'
import { t } from '@/lib/t'
import { type ButtonSize, type ButtonVariant, buttonClass } from './button'
import { VisuallyHidden } from './visually-hidden'

type AnchorProps = AnchorHTMLAttributes<HTMLAnchorElement> & { ref?: Ref<HTMLAnchorElement> }

function TextAnchor({ className, children, ...rest }: AnchorProps) {
  return (
    <a {...rest} className={cx('rounded-sm text-accent underline-offset-2 hover:underline', className)}>
      {children}
    </a>
  )
}

function ButtonAnchor({
  variant,
  size,
  icon: Icon,
  className,
  children,
  ...rest
}: AnchorProps & {
  variant?: ButtonVariant
  size?: ButtonSize
  icon?: LucideIcon
}) {
  return (
    <a {...rest} className={cx(buttonClass(variant, size), className)}>
      {Icon && <Icon aria-hidden="true" className="-ml-0.5 size-4" />}
      {children}
    </a>
  )
}

function PlainAnchor({ children, ...rest }: AnchorProps) {
  return <a {...rest}>{children}</a>
}

/** A link to a page of the console: `<Link to="/servers/$name" params={{ name }}>`. */
export const Link = createLink(TextAnchor)

/** A link that looks like a button. */
export const ButtonLink = createLink(ButtonAnchor)

/** A link without a look of its own. */
export const PlainLink = createLink(PlainAnchor)

/** A link out of the console. An address that may not be a link is shown as text. */
export function ExternalLink({
  href,
  children,
  className,
}: {
  href: string
  children?: ReactNode
  className?: string
}) {
  const url = safeUrl(href)
  if (url === undefined) return <span className={className}>{children ?? href}</span>
  return (
    <a
      href={url}
      target="_blank"
      rel="noopener noreferrer nofollow"
      className={cx(
        'inline-flex items-center gap-1 rounded-sm text-accent underline-offset-2 hover:underline',
        className,
      )}
    >
      {children ?? href}
      <ExternalIcon aria-hidden="true" className="size-3.5 shrink-0" />
      <VisuallyHidden>{t('(opens in a new tab)')}</VisuallyHidden>
    </a>
  )
}
