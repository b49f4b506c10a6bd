/** Keyboard shortcuts as they are written and as they are pressed. */

/** Whether this computer calls the command key by its own name. */
export function isApple(): boolean {
  return typeof navigator !== 'undefined' && /mac|iphone|ipad/i.test(navigator.userAgent)
}

/** The key that goes with shortcuts here: `⌘` or `Ctrl`. */
export function modifierName(): string {
  return isApple() ? '⌘' : 'Ctrl'
}

/** Whether the key press goes into something that is typed into, where single letters are no shortcuts. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target
  if (!(target instanceof HTMLElement)) return false
  return target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName)
}
