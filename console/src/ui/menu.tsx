import { Menu as Base } from '@base-ui/react/menu'
import type { LucideIcon } from 'lucide-react'
import type { ReactElement, ReactNode } from 'react'
import { cx } from '@/lib/cx'
import { useFloatingContainer } from './floating'

/** One line of a menu. */
export interface MenuItem {
  label: string
  icon?: LucideIcon
  onSelect: () => void
  danger?: boolean
  /** Why it cannot be chosen; shown under the label. */
  disabledReason?: string | undefined
  /** A line above it. */
  separated?: boolean
}

/** A menu of actions behind a button: `<Menu trigger={<IconButton icon={MoreHorizontal} label={t('More')} />} items={...} />`. */
export function Menu({
  trigger,
  items,
  align = 'end',
  header,
}: {
  trigger: ReactElement<Record<string, unknown>>
  items: readonly MenuItem[]
  align?: 'start' | 'center' | 'end'
  header?: ReactNode
}) {
  return (
    <Base.Root>
      <Base.Trigger render={trigger} />
      <Base.Portal container={useFloatingContainer()}>
        <Base.Positioner align={align} sideOffset={4} collisionPadding={8} className="z-50 outline-none">
          <Base.Popup className="floating max-h-[var(--available-height)] min-w-44 overflow-y-auto p-1 outline-none">
            {header !== undefined && (
              <div className="border-b px-2 pt-1 pb-2 text-sm text-muted">{header}</div>
            )}
            {items.map((item) => (
              <div key={item.label}>
                {item.separated && <Base.Separator className="my-1 h-px bg-line" />}
                <Base.Item
                  onClick={item.onSelect}
                  disabled={item.disabledReason !== undefined}
                  className={cx(
                    'flex min-h-control-small cursor-default items-center gap-2 rounded px-2 py-1 outline-none select-none',
                    'data-[disabled]:text-faint data-[highlighted]:bg-pressed',
                    item.danger && 'text-bad',
                  )}
                >
                  {item.icon && <item.icon aria-hidden="true" className="size-4 shrink-0 opacity-80" />}
                  <span className="min-w-0">
                    {item.label}
                    {item.disabledReason !== undefined && (
                      <span className="block max-w-60 text-xs text-faint">{item.disabledReason}</span>
                    )}
                  </span>
                </Base.Item>
              </div>
            ))}
          </Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  )
}
