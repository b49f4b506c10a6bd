/** Server-sent events out of chunks of text (WHATWG HTML, section 9.2.6), in bounded memory. */

/** Takes the data of whole events out of a stream of text. */
export class EventReader {
  readonly #limit: number
  #rest = ''
  #data: string[] = []
  #size = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** The data of every event that ended in this chunk. Throws when one event is larger than the limit. */
  push(chunk: string): string[] {
    const events: string[] = []
    this.#rest += chunk
    let from = 0
    for (;;) {
      const end = lineEnd(this.#rest, from)
      if (end === undefined) break
      this.#line(this.#rest.slice(from, end.at), events)
      from = end.next
    }
    this.#rest = this.#rest.slice(from)
    if (this.#rest.length + this.#size > this.#limit) throw new TooLarge(this.#limit)
    return events
  }

  #line(line: string, events: string[]) {
    if (line === '') {
      if (this.#data.length > 0) events.push(this.#data.join('\n'))
      this.#data = []
      this.#size = 0
      return
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    if (field !== 'data') return
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    this.#data.push(value)
    this.#size += value.length + 1
    if (this.#size > this.#limit) throw new TooLarge(this.#limit)
  }
}

/** An answer that is larger than this console reads. */
export class TooLarge extends Error {
  override name = 'TooLarge'
  constructor(limit: number) {
    super(`more than ${limit} characters`)
  }
}

/** Where the line from `from` ends. A carriage return at the very end may be half of a line end: wait for the rest. */
function lineEnd(text: string, from: number): { at: number; next: number } | undefined {
  for (let at = from; at < text.length; at += 1) {
    const character = text[at]
    if (character === '\n') return { at, next: at + 1 }
    if (character === '\r') {
      if (at + 1 === text.length) return undefined
      return { at, next: text[at + 1] === '\n' ? at + 2 : at + 1 }
    }
  }
  return undefined
}
