import type { LucideIcon } from 'lucide-react'
import type { ReactNode } from 'react'

/** Nothing is here yet: what would be, and the next action. */
export function EmptyState({
  icon: Icon,
  title,
  children,
  action,
}: {
  icon?: LucideIcon
  title: string
  children?: ReactNode
  /** A button or a `ButtonLink`. */
  action?: ReactNode
}) {
  return (
    <div className="flex flex-col items-center px-4 py-12 text-center">
      {Icon && (
        <span className="mb-3 flex size-9 items-center justify-center rounded-lg border bg-sunken text-muted">
          <Icon aria-hidden="true" className="size-4.5" />
        </span>
      )}
      <p className="font-medium">{title}</p>
      {children !== undefined && <div className="mt-1 max-w-md text-muted">{children}</div>}
      {action !== undefined && <div className="mt-4 flex flex-wrap justify-center gap-2">{action}</div>}
    </div>
  )
}
