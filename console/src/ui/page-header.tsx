import { ChevronRight } from 'lucide-react'
import type { ReactNode } from 'react'
import { t } from '@/lib/t'

/** The head of a page: its one `h1`, what leads to it, and what can be done. The focus comes here on navigation. */
export function PageHeader({
  title,
  breadcrumbs,
  meta,
  actions,
  children,
}: {
  title: ReactNode
  breadcrumbs?: ReactNode
  /** Beside the title: a status, badges. */
  meta?: ReactNode
  actions?: ReactNode
  /** Under the title: one sentence, or facts. */
  children?: ReactNode
}) {
  return (
    <header className="mb-5">
      {breadcrumbs}
      <div className="flex flex-wrap items-start justify-between gap-x-6 gap-y-3">
        <div className="min-w-0">
          <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
            <h1 tabIndex={-1} className="min-w-0 text-xl font-semibold tracking-[-0.01em] wrap-anywhere">
              {title}
            </h1>
            {meta}
          </div>
          {children !== undefined && <div className="mt-1 max-w-prose text-muted">{children}</div>}
        </div>
        {actions !== undefined && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
      </div>
    </header>
  )
}

/** The way to this page: links, without the page itself. */
export function Breadcrumbs({ children }: { children: ReactNode[] | ReactNode }) {
  const links = Array.isArray(children) ? children : [children]
  return (
    <nav aria-label={t('Breadcrumbs')} className="mb-1">
      <ol className="flex flex-wrap items-center gap-1 text-sm text-muted">
        {links.map((link, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a crumb is its place.
          <li key={index} className="flex items-center gap-1">
            {link}
            <ChevronRight aria-hidden="true" className="size-3.5 text-faint" />
          </li>
        ))}
      </ol>
    </nav>
  )
}
