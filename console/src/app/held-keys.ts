/**
 * Keys that are pressed after Ctrl-K and before the search has the keyboard: it is loaded when it is first needed, and a
 * page behind it must not take them as its own.
 */

/** What was typed meanwhile. */
export interface Held {
  text: string
  /** Whether Enter came after it. */
  enter: boolean
}

/** Takes what a key means, and gives `undefined` where it calls the search off. */
export function take(held: Held, key: string): Held | undefined {
  if (key === 'Escape') return undefined
  if (key === 'Enter') return { ...held, enter: true }
  // What comes after Enter is not for the search any more, and not for the page.
  if (held.enter) return held
  if (key === 'Backspace') return { ...held, text: held.text.slice(0, -1) }
  return { ...held, text: held.text + key }
}

/** Whether a key is the search's; the browser keeps the others, such as F5 and Tab, should it never come. */
export function isHeld(key: string): boolean {
  return [...key].length === 1 || ['Enter', 'Backspace', 'Escape'].includes(key)
}

/** Keeps these keys from the page, until `release` gives what was typed. `cancel` is called when Escape was. */
export function holdKeys(cancel: () => void): () => Held {
  let held: Held = { text: '', enter: false }
  const release = () => {
    window.removeEventListener('keydown', press, true)
    return held
  }
  const press = (event: KeyboardEvent) => {
    const { ctrlKey, metaKey, altKey, key } = event
    // AltGr, which writes characters, counts as Ctrl and Alt.
    const isCommand = (ctrlKey || metaKey || altKey) && !event.getModifierState('AltGraph')
    if (isCommand ? key.toLowerCase() !== 'k' : !isHeld(key)) return
    event.preventDefault()
    event.stopPropagation()
    const next = isCommand ? held : take(held, key)
    if (next !== undefined) held = next
    else {
      release()
      cancel()
    }
  }
  window.addEventListener('keydown', press, true)
  return release
}
