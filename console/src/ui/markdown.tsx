import type { ReactNode } from 'react'
import { plainText } from '@/lib/text'
import { ExternalLink } from './link'

/** Longer texts are cut. */
const LONGEST = 100_000
/** Deeper structures than this are shown as their text. */
const DEEPEST = 6

type Block =
  | { kind: 'heading'; level: number; text: string }
  | { kind: 'paragraph'; text: string }
  | { kind: 'code'; text: string }
  | { kind: 'quote'; text: string }
  | { kind: 'list'; ordered: boolean; items: string[] }
  | { kind: 'table'; head: string[]; rows: string[][] }
  | { kind: 'rule' }

/**
 * Hostile Markdown: headings, paragraphs, lists, quotes, tables, code, emphasis and safe links. HTML in it is text,
 * pictures are links to them, and nothing in it becomes an attribute but a checked address. Its headings stand below
 * those of the page.
 */
export function Markdown({ text }: { text: string }) {
  return <div className="flex max-w-prose flex-col gap-3">{blocks(plainText(text, LONGEST), 0)}</div>
}

function blocks(text: string, depth: number): ReactNode[] {
  // biome-ignore lint/suspicious/noArrayIndexKey: a block is its place in the text, and the text does not change.
  return parseBlocks(text).map((block, place) => <BlockView key={place} block={block} depth={depth} />)
}

function BlockView({ block, depth }: { block: Block; depth: number }) {
  switch (block.kind) {
    case 'heading':
      return block.level <= 2 ? (
        <h3 className="mt-2 text-lg font-semibold first:mt-0">{inline(block.text)}</h3>
      ) : (
        <h4 className="mt-1 font-semibold first:mt-0">{inline(block.text)}</h4>
      )
    case 'paragraph':
      return <p>{inline(block.text)}</p>
    case 'code':
      return (
        <section
          aria-label="code"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="overflow-x-auto rounded-md border bg-sunken p-3"
        >
          <pre className="text-sm">
            <code>{block.text}</code>
          </pre>
        </section>
      )
    case 'quote':
      return (
        <blockquote className="flex flex-col gap-2 border-l-2 pl-3 text-muted">
          {depth < DEEPEST ? blocks(block.text, depth + 1) : block.text}
        </blockquote>
      )
    case 'list': {
      const List = block.ordered ? 'ol' : 'ul'
      return (
        <List className={`flex flex-col gap-1 pl-5 ${block.ordered ? 'list-decimal' : 'list-disc'}`}>
          {block.items.map((item, place) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: an item is its place in the list.
            <li key={place}>
              {depth < DEEPEST && item.includes('\n') ? blocks(item, depth + 1) : inline(item)}
            </li>
          ))}
        </List>
      )
    }
    case 'table':
      return (
        <section
          aria-label="table"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="overflow-x-auto rounded-md border"
        >
          <table className="w-full text-left">
            <thead>
              <tr className="border-b bg-sunken">
                {block.head.map((cell, place) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: a column is its place.
                  <th key={place} scope="col" className="px-3 py-1.5 font-medium">
                    {inline(cell)}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {block.rows.map((row, line) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: a row is its place.
                <tr key={line} className="border-b last:border-b-0">
                  {block.head.map((_, place) => (
                    // biome-ignore lint/suspicious/noArrayIndexKey: a column is its place.
                    <td key={place} className="px-3 py-1.5 align-top">
                      {inline(row[place] ?? '')}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )
    case 'rule':
      return <hr />
  }
}

const FENCE = /^ {0,3}(```+|~~~+)/
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])\s+(.*)$/
const RULE = /^ {0,3}([-*_])( *\1){2,}\s*$/
const QUOTE = /^ {0,3}>\s?/
const DIVIDER = /^\s*\|?(\s*:?-+:?\s*\|)+\s*:?-*:?\s*$/

/** Splits a text into blocks. Every line goes forward, so that it ends for any text. */
export function parseBlocks(text: string): Block[] {
  const lines = text.split('\n')
  const found: Block[] = []
  let paragraph: string[] = []
  const flush = () => {
    if (paragraph.length > 0) found.push({ kind: 'paragraph', text: paragraph.join(' ') })
    paragraph = []
  }
  let at = 0
  while (at < lines.length) {
    const line = lines[at] ?? ''
    const fence = FENCE.exec(line)?.[1]
    const heading = HEADING.exec(line)
    if (fence !== undefined) {
      flush()
      const code: string[] = []
      at += 1
      while (at < lines.length && !(lines[at] ?? '').trimStart().startsWith(fence))
        code.push(lines[at++] ?? '')
      at += 1
      found.push({ kind: 'code', text: code.join('\n') })
    } else if (heading !== null) {
      flush()
      found.push({ kind: 'heading', level: heading[1]?.length ?? 1, text: heading[2] ?? '' })
      at += 1
    } else if (RULE.test(line)) {
      flush()
      found.push({ kind: 'rule' })
      at += 1
    } else if (QUOTE.test(line)) {
      flush()
      const quoted: string[] = []
      while (at < lines.length && QUOTE.test(lines[at] ?? ''))
        quoted.push((lines[at++] ?? '').replace(QUOTE, ''))
      found.push({ kind: 'quote', text: quoted.join('\n') })
    } else if (ITEM.test(line)) {
      flush()
      const [list, next] = readList(lines, at)
      found.push(list)
      at = next
    } else if (line.includes('|') && DIVIDER.test(lines[at + 1] ?? '')) {
      flush()
      const rows: string[][] = []
      const head = cells(line)
      at += 2
      while (at < lines.length && (lines[at] ?? '').includes('|')) rows.push(cells(lines[at++] ?? ''))
      found.push({ kind: 'table', head: head.slice(0, 20), rows })
    } else if (line.trim() === '') {
      flush()
      at += 1
    } else {
      paragraph.push(line.trim())
      at += 1
    }
  }
  flush()
  return found
}

function readList(lines: string[], from: number): [Block, number] {
  const first = ITEM.exec(lines[from] ?? '')
  const ordered = /\d/.test(first?.[2] ?? '')
  const indent = first?.[1]?.length ?? 0
  const items: string[][] = []
  let at = from
  while (at < lines.length) {
    const line = lines[at] ?? ''
    const item = ITEM.exec(line)
    const last = items.at(-1)
    const deeper = /^ */.exec(line)?.[0].length ?? 0
    if (item !== null && deeper < indent + 2) {
      if (/\d/.test(item[2] ?? '') !== ordered) break
      items.push([item[3] ?? ''])
    }
    // What is indented belongs to the item above.
    else if (last !== undefined && line.trim() !== '' && deeper >= indent + 2)
      last.push(line.slice(Math.min(deeper, indent + (ordered ? 3 : 2))))
    else if (
      last !== undefined &&
      line.trim() === '' &&
      /^(\s{2,}\S| {0,3}([-*+]|\d+[.)])\s)/.test(lines[at + 1] ?? '')
    )
      last.push('')
    else break
    at += 1
  }
  return [{ kind: 'list', ordered, items: items.map((one) => one.join('\n').trimEnd()) }, at]
}

function cells(line: string): string[] {
  return line
    .trim()
    .replace(/^\||\|$/g, '')
    .split('|')
    .map((cell) => cell.trim())
}

const INLINE =
  /(`+)([^`]{1,2000}?)\1|!?\[([^\][]{0,500})\]\(\s*<?([^\s<>()]{0,2000}(?:\([^\s()]{0,200}\))?)>?(?:\s+"[^"]{0,300}")?\s*\)|<(https?:\/\/[^\s<>]{1,2000})>|\*\*([^*]{1,1000})\*\*|__([^_]{1,1000})__|\*([^*\s][^*]{0,1000})\*|(?<![\w])_([^_\s][^_]{0,1000})_(?![\w])/g

function inline(text: string): ReactNode[] {
  const parts: ReactNode[] = []
  let from = 0
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) parts.push(text.slice(from, match.index))
    from = match.index + match[0].length
    const [whole, , code, label, address, plain, bold, bold2, emphasis, emphasis2] = match
    const key = match.index
    if (code !== undefined) {
      parts.push(
        <code key={key} className="rounded bg-sunken px-1 wrap-anywhere">
          {code}
        </code>,
      )
    } else if (address !== undefined) {
      const shown = label === undefined || label === '' ? address : label
      parts.push(
        <ExternalLink key={key} href={address} className="wrap-anywhere">
          {shown}
        </ExternalLink>,
      )
    } else if (plain !== undefined) {
      parts.push(<ExternalLink key={key} href={plain} className="wrap-anywhere" />)
    } else if ((bold ?? bold2) !== undefined) {
      parts.push(<strong key={key}>{bold ?? bold2}</strong>)
    } else if ((emphasis ?? emphasis2) !== undefined) {
      parts.push(<em key={key}>{emphasis ?? emphasis2}</em>)
    } else parts.push(whole)
  }
  if (from < text.length) parts.push(text.slice(from))
  return parts
}
