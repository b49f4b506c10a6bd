/**
 * Server-sent events, read through `fetch` and not `EventSource`: events have their kind as their name, and
 * `EventSource` hears only names that it was told of; it also hides the status of a refusal.
 */

/** One event of a stream. */
export interface StreamEvent {
  id: string | undefined
  name: string
  data: string
}

/** Splits the text of a stream into events. Feed it pieces as they come. */
export class EventParser {
  #rest = ''
  #id: string | undefined
  #name = ''
  #data: string[] = []

  /** The events that this piece completed. */
  push(piece: string): StreamEvent[] {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r/)
    this.#rest = lines.pop() ?? ''
    const events: StreamEvent[] = []
    for (const line of lines) {
      if (line !== '') this.#field(line)
      else if (this.#data.length > 0) {
        events.push({ id: this.#id, name: this.#name || 'message', data: this.#data.join('\n') })
        this.#name = ''
        this.#data = []
      } else this.#name = ''
    }
    return events
  }

  #field(line: string): void {
    const colon = line.indexOf(':')
    if (colon === 0) return
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (name === 'data') this.#data.push(value)
    else if (name === 'event') this.#name = value
    else if (name === 'id') this.#id = value
  }
}
