import { Lexer } from 'marked'
import { createElement } from 'react'
import { renderToStaticMarkup } from 'react-dom/server'
import { describe, expect, test, vi } from 'vitest'
import { Markdown } from './markdown'

const html = (text: string) => renderToStaticMarkup(createElement(Markdown, { text }))

describe('Markdown', () => {
  test('shows headings, lists, quotes, tables and code', () => {
    const shown = html(
      '# Title\n\ntext **bold** `code`\n\n- one\n- two\n\n> said\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx < y\n```',
    )
    for (const part of [
      '<h3',
      '<strong>bold</strong>',
      '>one</li>',
      '<blockquote',
      '<th scope="col"',
      'x &lt; y',
    ])
      expect(shown).toContain(part)
  })

  test('shows nested lists, tasks, and links with pictures in them', () => {
    expect(html('1. a\n   - b\n   - c\n2. d')).toMatch(/<ol[^>]*>.*<ul[^>]*>.*b.*c.*<\/ul>.*d/)
    expect(html('- [x] done\n- [ ] open')).toMatch(/☑ .*done.*☐ .*open/)
    const badge = html('[![build](https://a.example/b.svg)](https://a.example/ci)')
    expect(badge).toContain('href="https://a.example/ci"')
    expect(badge).not.toContain('b.svg')
    expect(html('a &lt;b&gt; &amp; &#8230; [x][y]\n\n[y]: https://a.example/')).toContain(
      'a &lt;b&gt; &amp; … ',
    )
    expect(html('~~old~~ `a&amp;b`')).toMatch(/<del>old<\/del>.*a&amp;amp;b/)
  })

  test('keeps HTML as text', () => {
    const shown = html('<img src=x onerror=alert(1)>\n\n<script>alert(1)</script>')
    expect(shown).not.toContain('<img')
    expect(shown).not.toContain('<script')
    expect(shown).toContain('&lt;script&gt;')
  })

  test('makes links only of safe addresses, and none of pictures', () => {
    expect(html('[x](https://a.example/b)')).toContain('href="https://a.example/b"')
    for (const bad of [
      '[x](javascript:alert(1))',
      '[x](data:text/html,x)',
      '![x](javascript:alert(1))',
      '[x](//evil)',
    ])
      expect(html(bad)).not.toContain('href')
    expect(html('![x](https://a.example/b.png)')).not.toContain('<img')
  })

  // By what is looked at, not by the clock. Looking for emphasis and links is what takes more than linear time.
  test('looks for emphasis and links only in short paragraphs, each once, whatever the text', () => {
    const looked = vi.spyOn(Lexer.prototype, 'inlineTokens')
    const lengths = () => looked.mock.calls.map(([text]) => text.length)
    html(`${'_a'.repeat(2400)}\n\n`.repeat(3))
    expect(lengths()).toEqual([4800, 4800, 4800])
    const hostile = [
      '['.repeat(50_000),
      '*'.repeat(50_000),
      '> '.repeat(3_000),
      '- a\n  '.repeat(1_000),
      '`'.repeat(50_000),
      `${'|'.repeat(50_000)}\n${'|-'.repeat(20_000)}`,
      '_a'.repeat(40_000),
      '![](('.repeat(15_000),
      `${'_a'.repeat(4000)}\n\n`.repeat(12),
      'a**b'.repeat(20_000),
      Array.from({ length: 100 }, (_, at) => `${'  '.repeat(at)}- x`).join('\n'),
      '<a '.repeat(25_000),
      '[a]: b\n'.repeat(2_000),
      '&#8230;'.repeat(14_000),
    ]
    for (const text of hostile) {
      looked.mockClear()
      html(text)
      expect(Math.max(0, ...lengths())).toBeLessThanOrEqual(5_000)
      expect(lengths().reduce((sum, length) => sum + length, 0)).toBeLessThanOrEqual(text.length)
    }
    looked.mockRestore()
  }, 60_000)

  test('shows no more than the first 100,000 characters', () => {
    expect(html('x'.repeat(300_000))).toContain(`>${'x'.repeat(100_000)}…<`)
  })
})
