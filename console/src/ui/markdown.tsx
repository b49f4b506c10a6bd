import { Lexer, type MarkedToken, type Token, type Tokens } from 'marked'
import type { ReactNode } from 'react'
import { plainText } from '@/lib/text'
import { ExternalLink } from './link'

/** Longer texts are cut. */
const LONGEST = 100_000
/** Longer paragraphs are shown without emphasis and links: looking for those takes more than linear time. */
const LONGEST_PARAGRAPH = 5_000
/** Deeper structures than this are shown as their text. */
const DEEPEST = 12
const MOST_COLUMNS = 20

/**
 * Hostile Markdown, as GitHub writes it. HTML in it is text, pictures are links to them, and nothing in it becomes an
 * attribute but a checked address. Its headings stand below those of the page.
 */
export function Markdown({ text }: { text: string }) {
  const bounded = plainText(text, LONGEST)
  const tokens = lexed(bounded)
  return (
    <div className="flex max-w-prose flex-col gap-3">
      {tokens === undefined ? <p className="whitespace-pre-wrap">{bounded}</p> : blocks(tokens, 0)}
    </div>
  )
}

/** The blocks of a text with what is in them; `undefined` for one that is nested beyond reason. */
function lexed(text: string): Token[] | undefined {
  try {
    const lexer = new Lexer({ gfm: true })
    lexer.blockTokens(text, lexer.tokens)
    // What `lex` does, but not for paragraphs that take too long.
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length <= LONGEST_PARAGRAPH) lexer.inlineTokens(src, tokens)
      else tokens.push({ type: 'text', raw: src, text: src, escaped: false })
    }
    return lexer.tokens
  } catch {
    return undefined
  }
}

function blocks(tokens: readonly Token[], depth: number): ReactNode[] {
  return tokens.map((token, place) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: a block is its place in the text, and the text does not change.
    <Block key={place} token={token} depth={depth} />
  ))
}

function Block({ token: given, depth }: { token: Token; depth: number }) {
  const token = given as MarkedToken // as: the other kinds are extensions', and there are none.
  if (depth > DEEPEST) return token.raw
  switch (token.type) {
    case 'heading':
      return token.depth <= 2 ? (
        <h3 className="mt-2 text-lg font-semibold first:mt-0">{inline(token.tokens, depth)}</h3>
      ) : (
        <h4 className="mt-1 font-semibold first:mt-0">{inline(token.tokens, depth)}</h4>
      )
    case 'code':
      return (
        <Scrolling label="code" className="bg-sunken p-3">
          <pre className="text-sm">
            <code>{token.text}</code>
          </pre>
        </Scrolling>
      )
    case 'blockquote':
      return (
        <blockquote className="flex flex-col gap-2 border-l-2 pl-3 text-muted">
          {blocks(token.tokens, depth + 1)}
        </blockquote>
      )
    case 'list':
      return <List list={token} depth={depth} />
    case 'table':
      return <Table table={token} depth={depth} />
    case 'hr':
      return <hr />
    case 'space':
    case 'def':
      return null
    case 'paragraph':
      return <p>{inline(token.tokens, depth)}</p>
    case 'text':
      return token.tokens === undefined ? decoded(token.text) : inline(token.tokens, depth)
    default:
      return <p className="whitespace-pre-wrap">{token.raw.trim()}</p>
  }
}

function List({ list, depth }: { list: Tokens.List; depth: number }) {
  const Element = list.ordered ? 'ol' : 'ul'
  return (
    <Element
      start={list.ordered && typeof list.start === 'number' ? list.start : undefined}
      className={`flex flex-col gap-1 pl-5 ${list.ordered ? 'list-decimal' : 'list-disc'}`}
    >
      {list.items.map((item, place) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an item is its place in the list.
        <li key={place} className="*:not-first:mt-1">
          {item.task && (item.checked === true ? '☑ ' : '☐ ')}
          {blocks(
            item.tokens.filter((token) => token.type !== 'checkbox'),
            depth + 1,
          )}
        </li>
      ))}
    </Element>
  )
}

function Table({ table, depth }: { table: Tokens.Table; depth: number }) {
  return (
    <Scrolling label="table">
      <table className="w-full text-left">
        <thead>
          <tr className="border-b bg-sunken">
            {table.header.slice(0, MOST_COLUMNS).map((cell, place) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: a column is its place.
              <th key={place} scope="col" className="px-3 py-1.5 font-medium">
                {inline(cell.tokens, depth)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, line) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: a row is its place.
            <tr key={line} className="border-b last:border-b-0">
              {row.slice(0, MOST_COLUMNS).map((cell, place) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: a column is its place.
                <td key={place} className="px-3 py-1.5 align-top">
                  {inline(cell.tokens, depth)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scrolling>
  )
}

function Scrolling({
  label,
  className = '',
  children,
}: {
  label: string
  className?: string
  children: ReactNode
}) {
  return (
    <section
      aria-label={label}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      className={`overflow-x-auto rounded-md border ${className}`}
    >
      {children}
    </section>
  )
}

function inline(tokens: readonly Token[], depth: number): ReactNode[] {
  return tokens.map((token, place) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: a piece is its place in the text.
    <Inline key={place} token={token} depth={depth + 1} />
  ))
}

function Inline({ token: given, depth }: { token: Token; depth: number }) {
  const token = given as MarkedToken // as: the other kinds are extensions', and there are none.
  if (depth > DEEPEST) return token.raw
  switch (token.type) {
    case 'strong':
      return <strong>{inline(token.tokens, depth)}</strong>
    case 'em':
      return <em>{inline(token.tokens, depth)}</em>
    case 'del':
      return <del>{inline(token.tokens, depth)}</del>
    case 'codespan':
      return <code className="rounded bg-sunken px-1 wrap-anywhere">{token.text}</code>
    case 'br':
      return <br />
    case 'link':
      return (
        <ExternalLink href={token.href} className="wrap-anywhere">
          {texts(token.tokens) || token.href}
        </ExternalLink>
      )
    case 'image':
      return (
        <ExternalLink href={token.href} className="wrap-anywhere">
          {decoded(token.text) || token.href}
        </ExternalLink>
      )
    case 'escape':
      return token.text
    case 'text':
      return token.tokens === undefined ? decoded(token.text) : inline(token.tokens, depth)
    default:
      return token.raw
  }
}

/** The text of a link: its pieces without their looks, because a picture in it would be a link in a link. */
function texts(tokens: readonly Token[]): string {
  return tokens
    .map((token) => {
      const inner = 'tokens' in token && token.tokens !== undefined ? texts(token.tokens) : ''
      if (inner !== '') return inner
      return 'text' in token && typeof token.text === 'string' ? decoded(token.text) : token.raw
    })
    .join('')
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: '\u00a0',
  copy: '©',
  hellip: '…',
  mdash: '—',
  ndash: '–',
}

/** The common character references as what they mean; the others stay. */
function decoded(text: string): string {
  return text.includes('&')
    ? text.replace(/&(?:#(\d{1,6})|([a-z]{2,8}));/g, (whole, number: string | undefined, name = '') =>
        number === undefined
          ? (ENTITIES[name] ?? whole)
          : plainText(String.fromCodePoint(Math.min(Number(number), 0x10_ffff))),
      )
    : text
}
