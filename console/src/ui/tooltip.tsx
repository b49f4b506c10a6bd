import {
  cloneElement,
  type ReactElement,
  type ReactNode,
  type SyntheticEvent,
  useEffect,
  useRef,
  useState,
} from 'react'
import { type Placement, useBeside } from './floating'

const FIRST_DELAY_MS = 400
const HIDE_DELAY_MS = 120
/** So soon after one tooltip the next one shows at once. */
const WARM_MS = 300
let hiddenAt = Number.NEGATIVE_INFINITY

type Handler = (event: SyntheticEvent<HTMLElement>) => void

/**
 * A few words about a control, on hover and on focus by keyboard. The control must have its own name: a tooltip is an
 * addition. It can be hovered itself, and Escape hides it.
 */
export function Tooltip({
  text,
  children,
  side = 'top',
  off = false,
}: {
  text: ReactNode
  children: ReactElement<Record<string, unknown>>
  side?: Placement['side']
  /** While what the control opens is open, or there is nothing to say. */
  off?: boolean
}) {
  const [anchor, setAnchor] = useState<HTMLElement>()
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  useEffect(() => () => clearTimeout(timer.current), [])
  const later = (delay: number, action: () => void) => {
    clearTimeout(timer.current)
    timer.current = setTimeout(action, delay)
  }
  const hide = () => {
    clearTimeout(timer.current)
    if (anchor === undefined) return
    hiddenAt = performance.now()
    setAnchor(undefined)
  }
  const show = (element: HTMLElement, delay: number) => {
    if (!off) later(delay, () => setAnchor(element))
  }
  const on: Record<string, Handler> = {
    onPointerEnter: ({ currentTarget, nativeEvent }) => {
      // A finger has no hover: it presses.
      if (nativeEvent instanceof PointerEvent && nativeEvent.pointerType !== 'mouse') return
      show(currentTarget, performance.now() - hiddenAt < WARM_MS ? 0 : FIRST_DELAY_MS)
    },
    onPointerLeave: () => later(HIDE_DELAY_MS, hide),
    onPointerDown: hide,
    onFocus: ({ currentTarget }) => {
      if (currentTarget.matches(':focus-visible')) show(currentTarget, 0)
    },
    onBlur: hide,
    onKeyDown: ({ nativeEvent }) => {
      if (nativeEvent instanceof KeyboardEvent && nativeEvent.key === 'Escape') hide()
    },
    onClick: hide,
  }
  const merged = Object.fromEntries(
    Object.entries(on).map(([name, handler]): [string, Handler] => [
      name,
      (event) => {
        const own = children.props[name]
        if (typeof own === 'function') own(event)
        handler(event)
      },
    ]),
  )
  return (
    <>
      {cloneElement(children, merged)}
      {anchor !== undefined && !off && (
        <Bubble
          anchor={anchor}
          side={side}
          onStay={() => clearTimeout(timer.current)}
          onLeave={() => later(HIDE_DELAY_MS, hide)}
        >
          {text}
        </Bubble>
      )}
    </>
  )
}

function Bubble({
  anchor,
  side,
  onStay,
  onLeave,
  children,
}: {
  anchor: HTMLElement
  side: Placement['side']
  onStay: () => void
  onLeave: () => void
  children: ReactNode
}) {
  const popup = useRef<HTMLSpanElement>(null)
  useBeside(true, popup, () => anchor, { side, align: 'center', gap: 6 })
  return (
    <span
      // Shown before it is placed, so that it has its size.
      ref={(element) => {
        popup.current = element
        element?.showPopover()
      }}
      popover="manual"
      role="tooltip"
      onPointerEnter={onStay}
      onPointerLeave={onLeave}
      className="floating inset-auto max-w-72 px-2 py-1 text-left text-sm font-normal whitespace-normal text-text"
    >
      {children}
    </span>
  )
}
