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
import { opener, useBeside } from './floating'

/** Something small that opens at a button: filters, an explanation, a short form. */
export function Popover({
  trigger,
  title,
  children,
  align = 'start',
}: {
  trigger: ReactElement<Record<string, unknown>>
  title: ReactNode
  children: ReactNode
  align?: 'start' | 'center' | 'end'
}) {
  const id = useId()
  const popup = useRef<HTMLDivElement>(null)
  const [open, setOpen] = useState(false)
  useBeside(open, popup, () => opener(id), { side: 'bottom', align, gap: 6 })
  return (
    <>
      {cloneElement(trigger, { popoverTarget: id, 'aria-haspopup': 'dialog', 'aria-expanded': open })}
      <div
        ref={popup}
        id={id}
        popover="auto"
        role="dialog"
        aria-labelledby={`${id}-title`}
        tabIndex={-1}
        onBeforeToggle={(event) => {
          if (event.newState === 'open') flushSync(() => setOpen(true))
        }}
        onToggle={(event) => {
          if (event.newState === 'closed') setOpen(false)
          else
            (
              popup.current?.querySelector<HTMLElement>('input, select, textarea, button, a[href]') ??
              popup.current
            )?.focus()
        }}
        // Escape closes this one, which the browser does, and not the dialog around it.
        onKeyDown={(event: KeyboardEvent) => {
          if (event.key === 'Escape') event.stopPropagation()
        }}
        className="floating inset-auto w-[min(92vw,22rem)] overflow-y-auto p-3 text-left whitespace-normal text-text outline-none"
      >
        <p id={`${id}-title`} className="mb-2 text-sm font-medium">
          {title}
        </p>
        {open && children}
      </div>
    </>
  )
}
