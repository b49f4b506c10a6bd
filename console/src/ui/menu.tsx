import type { LucideIcon } from 'lucide-react'
import {
  cloneElement,
  type KeyboardEvent,
  type ReactElement,
  type ReactNode,
  useId,
  useRef,
  useState,
} from 'react'
import { flushSync } from 'react-dom'
import { cx } from '@/lib/cx'
import { opener, useBeside } from './floating'

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

/**
 * A menu of actions behind a button: `<Menu trigger={<IconButton icon={MoreHorizontal} label={t('More')} />} items={...} />`.
 * Arrow keys, Home, End and first letters move; Escape and pressing elsewhere close it, which the browser does.
 */
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
  const id = useId()
  const popup = useRef<HTMLDivElement>(null)
  const [open, setOpen] = useState(false)
  useBeside(open, popup, () => opener(id), { side: 'bottom', align, gap: 4 })
  const close = () => popup.current?.hidePopover()
  const lines = () => [...(popup.current?.querySelectorAll<HTMLElement>('[role="menuitem"]') ?? [])]
  const press = (event: KeyboardEvent) => {
    const all = lines()
    const at = all.findIndex((line) => line.matches(':focus'))
    const next = target(event.key, all, at)
    if (event.key === 'Tab') close()
    // The keys of an open menu are no keys of the table or the dialog that it is in.
    if (event.key !== 'Tab') event.stopPropagation()
    if (next === undefined) return
    event.preventDefault()
    next.focus()
  }
  return (
    <>
      {cloneElement(trigger, {
        popoverTarget: id,
        'aria-haspopup': 'menu',
        'aria-expanded': open,
        onKeyDown: (event: KeyboardEvent) => {
          if (event.key !== 'ArrowDown' || open) return
          event.preventDefault()
          event.stopPropagation()
          popup.current?.showPopover()
        },
      })}
      <div
        ref={popup}
        id={id}
        popover="auto"
        role="menu"
        tabIndex={-1}
        aria-label={
          typeof trigger.props['aria-label'] === 'string' ? trigger.props['aria-label'] : labelOf(trigger)
        }
        // The lines are there before it is shown, and are placed when it is.
        onBeforeToggle={(event) => {
          if (event.newState === 'open') flushSync(() => setOpen(true))
        }}
        onToggle={(event) => {
          if (event.newState === 'closed') setOpen(false)
          else lines()[0]?.focus({ preventScroll: true })
        }}
        onKeyDown={press}
        className="floating inset-auto min-w-44 overflow-y-auto p-1 text-left whitespace-normal text-text outline-none"
      >
        {open && header !== undefined && (
          <div role="presentation" className="mb-1 border-b px-2 pt-1 pb-2 text-sm text-muted">
            {header}
          </div>
        )}
        {open &&
          items.map((item) => (
            <Line
              key={item.label}
              item={item}
              onSelect={() => {
                close()
                item.onSelect()
              }}
            />
          ))}
      </div>
    </>
  )
}

function Line({ item, onSelect }: { item: MenuItem; onSelect: () => void }) {
  const off = item.disabledReason !== undefined
  return (
    <>
      {/* biome-ignore lint/a11y/useSemanticElements: a rule of a menu has a role of its own. */}
      {item.separated && <div role="separator" className="my-1 h-px bg-line" />}
      <button
        type="button"
        role="menuitem"
        tabIndex={-1}
        aria-disabled={off || undefined}
        onClick={() => {
          if (!off) onSelect()
        }}
        onPointerMove={(event) => event.currentTarget.focus({ preventScroll: true })}
        className={cx(
          'flex min-h-control-small w-full cursor-default items-center gap-2 rounded px-2 py-1 text-left outline-none select-none focus:bg-pressed',
          off ? 'text-faint' : item.danger && 'text-bad',
        )}
      >
        {item.icon && <item.icon aria-hidden="true" className="size-4 shrink-0 opacity-80" />}
        <span className="min-w-0">
          {item.label}
          {off && <span className="block max-w-60 text-xs text-faint">{item.disabledReason}</span>}
        </span>
      </button>
    </>
  )
}

function labelOf(trigger: ReactElement<Record<string, unknown>>): string | undefined {
  const { label, children } = trigger.props
  if (typeof label === 'string') return label
  return typeof children === 'string' ? children : undefined
}

function target(key: string, lines: HTMLElement[], at: number): HTMLElement | undefined {
  const count = lines.length
  if (key === 'ArrowDown') return lines[(at + 1) % count]
  if (key === 'ArrowUp') return lines[(at - 1 + count) % count]
  if (key === 'Home') return lines[0]
  if (key === 'End') return lines[count - 1]
  if (key.length !== 1 || key === ' ') return undefined
  const after = [...lines.slice(at + 1), ...lines.slice(0, at + 1)]
  return after.find((line) => line.textContent.trim().toLowerCase().startsWith(key.toLowerCase()))
}
