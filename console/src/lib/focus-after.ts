import { flushSync } from 'react-dom'

/**
 * Makes a change of the page and gives the focus to the control that it brings, by its id: what was pressed may be gone,
 * and whoever uses the keyboard goes on where the change is.
 */
export function focusAfter(id: string, change: () => void): void {
  flushSync(change)
  document.getElementById(id)?.focus()
}

/** How long what is gone may take to go: windows are closed with a transition. */
const GONE_WITHIN_MS = 400

/**
 * Makes a change after which what had the focus may be gone, and then gives the focus to the page's heading: whoever uses
 * the keyboard goes on there, and not before everything. Where something has the focus, it keeps it.
 */
export function focusInstead(change: () => void): void {
  flushSync(change)
  focusHeading()
}

/** Gives the focus to the page's heading once nothing has had it for a moment, as after what had it is gone. */
export function focusHeading(): void {
  const began = performance.now()
  let nowhere = 0
  const look = () => {
    const { activeElement } = document
    nowhere = activeElement === null || activeElement === document.body ? nowhere + 1 : 0
    // A window gives the focus back a moment after it went.
    if (nowhere >= 3) document.querySelector<HTMLElement>('main h1')?.focus()
    else if (performance.now() - began < GONE_WITHIN_MS) requestAnimationFrame(look)
  }
  requestAnimationFrame(look)
}
