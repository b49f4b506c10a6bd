import { flushSync } from 'react-dom'

/**
 * Makes a change of the page and gives the focus to the control that it brings, by its id: what was pressed may be gone,
 * and whoever uses the keyboard goes on where the change is.
 */
export function focusAfter(id: string, change: () => void): void {
  flushSync(change)
  document.getElementById(id)?.focus()
}
