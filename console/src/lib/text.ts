/**
 * Hostile text: what servers, entries and logs say. React escapes it; this bounds it and shows what would be
 * invisible or would reorder what stands around it.
 */

const BIDI = /[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/
// biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/
const INVISIBLE = new RegExp(`${BIDI.source}|${CONTROL.source}|[\\u200b\\u2060\\ufeff]`, 'gu')

/** The text, at most so many characters long, with control characters and direction marks made visible. */
export function plainText(text: string | null | undefined, limit = 4096): string {
  if (text === null || text === undefined) return ''
  const bounded = text.length > limit ? `${text.slice(0, limit)}…` : text
  return bounded.replaceAll('\r\n', '\n').replace(INVISIBLE, visible)
}

/** One line of it: line breaks become spaces. */
export function oneLine(text: string | null | undefined, limit = 300): string {
  return plainText(text, limit).replace(/\s+/g, ' ').trim()
}

function visible(character: string): string {
  const code = character.codePointAt(0) ?? 0
  // The pictures of the C0 controls; everything else by its number.
  if (code < 0x20) return String.fromCodePoint(0x2400 + code)
  if (code === 0x7f) return '\u2421'
  return `[U+${code.toString(16).toUpperCase().padStart(4, '0')}]`
}

/** A piece of a line with how the terminal would show it. */
export interface AnsiSpan {
  text: string
  /** 0 to 15, as in the terminal's palette. */
  foreground?: number
  background?: number
  bold?: boolean
  dim?: boolean
  italic?: boolean
  underline?: boolean
}

type AnsiStyle = Omit<AnsiSpan, 'text'>

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the escape sequences of terminals.
const ESCAPE = /\u001b(?:\[([0-9;:?]*)[ -/]*([@-~])|\][^\u0007\u001b]{0,4096}(?:\u0007|\u001b\\)|[@-Z\\-_])/g

/**
 * A line with ANSI colours, as spans. Only colours and weights are taken; every other sequence (moving the cursor,
 * titles, hyperlinks) disappears, and what remains is made visible.
 */
export function parseAnsi(line: string, limit = 16_384): AnsiSpan[] {
  const text = line.length > limit ? `${line.slice(0, limit)}…` : line
  const spans: AnsiSpan[] = []
  let style: AnsiStyle = {}
  let from = 0
  const add = (part: string) => {
    if (part !== '') spans.push({ text: plainText(part, limit + 1), ...style })
  }
  for (const match of text.matchAll(ESCAPE)) {
    add(text.slice(from, match.index))
    from = match.index + match[0].length
    if (match[2] === 'm') style = restyle(style, (match[1] ?? '').split(/[;:]/).map(Number))
  }
  add(text.slice(from))
  return spans
}

function restyle(before: AnsiStyle, codes: number[]): AnsiStyle {
  let style = { ...before }
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0
    if (code === 0) style = {}
    else if (code === 1) style.bold = true
    else if (code === 2) style.dim = true
    else if (code === 3) style.italic = true
    else if (code === 4) style.underline = true
    else if (code === 22) style = { ...style, bold: false, dim: false }
    else if (code === 23) style.italic = false
    else if (code === 24) style.underline = false
    else if (code >= 30 && code <= 37) style.foreground = code - 30
    else if (code >= 90 && code <= 97) style.foreground = code - 82
    else if (code >= 40 && code <= 47) style.background = code - 40
    else if (code >= 100 && code <= 107) style.background = code - 92
    else if (code === 39) delete style.foreground
    else if (code === 49) delete style.background
    else if (code === 38 || code === 48) {
      // Of 256 colours the first 16 are the palette; the others and true colours keep the text's own colour.
      const palette = codes[at + 1] === 5 ? codes[at + 2] : undefined
      if (palette !== undefined && palette < 16) {
        if (code === 38) style.foreground = palette
        else style.background = palette
      }
      at += codes[at + 1] === 5 ? 2 : codes[at + 1] === 2 ? 4 : 0
    }
  }
  return style
}
