import { type RefObject, useLayoutEffect } from 'react'

/** Where something that floats stands, seen from its anchor; on the other side when there is no room. */
export interface Placement {
  side: 'top' | 'bottom' | 'left' | 'right'
  align: 'start' | 'center' | 'end'
  gap: number
}

/** Kept free at the edges of the window, in pixels. */
const EDGE = 8

/**
 * Keeps what floats beside its anchor while `open`. What floats is a native popover: it is above everything without
 * leaving its place in the page, so landmarks, focus order and dialogs around it stay right.
 */
export function useBeside(
  open: boolean,
  popup: RefObject<HTMLElement | null>,
  anchor: () => Element | null | undefined,
  { side, align, gap }: Placement,
): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: `anchor` is looked up when it is needed.
  useLayoutEffect(() => {
    if (!open) return
    const place = () => {
      const element = anchor()
      if (popup.current !== null && element)
        beside(popup.current, element.getBoundingClientRect(), { side, align, gap })
    }
    place()
    // It may not be shown yet, and has no size then; and what is in it may change.
    const sizes = new ResizeObserver(place)
    if (popup.current !== null) sizes.observe(popup.current)
    // Captured, because what scrolls may be any box around the anchor.
    window.addEventListener('scroll', place, { capture: true, passive: true })
    window.addEventListener('resize', place)
    return () => {
      sizes.disconnect()
      window.removeEventListener('scroll', place, { capture: true })
      window.removeEventListener('resize', place)
    }
  }, [open, popup, side, align, gap])
}

function beside(popup: HTMLElement, anchor: DOMRect, { side, align, gap }: Placement): void {
  const width = document.documentElement.clientWidth
  const height = window.innerHeight
  const vertical = side === 'top' || side === 'bottom'
  const above = anchor.top - gap - EDGE
  const below = height - anchor.bottom - gap - EDGE
  popup.style.maxHeight = `${Math.max(80, vertical ? Math.max(above, below) : height - 2 * EDGE)}px`
  const own = { width: popup.offsetWidth, height: popup.offsetHeight }
  let left: number
  let top: number
  if (vertical) {
    const wanted = side === 'bottom' ? below : above
    const other = side === 'bottom' ? above : below
    const stays = own.height <= wanted || wanted >= other
    top = (side === 'bottom') === stays ? anchor.bottom + gap : anchor.top - gap - own.height
    left = aligned(align, anchor.left, anchor.right, own.width)
  } else {
    const fits =
      side === 'right'
        ? anchor.right + gap + own.width + EDGE <= width
        : anchor.left - gap - own.width >= EDGE
    left = (side === 'right') === fits ? anchor.right + gap : anchor.left - gap - own.width
    top = aligned(align, anchor.top, anchor.bottom, own.height)
  }
  popup.style.left = `${Math.max(EDGE, Math.min(left, width - own.width - EDGE))}px`
  popup.style.top = `${Math.max(EDGE, Math.min(top, height - own.height - EDGE))}px`
}

function aligned(align: Placement['align'], start: number, end: number, size: number): number {
  if (align === 'start') return start
  return align === 'end' ? end - size : (start + end - size) / 2
}

/** The button that opens the popover of this id. */
export function opener(id: string): HTMLElement | null {
  return document.querySelector<HTMLElement>(`[popovertarget="${CSS.escape(id)}"]`)
}
