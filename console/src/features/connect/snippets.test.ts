import { describe, expect, test } from 'vitest'
import { clientLink, filled } from './snippets'

describe('texts with a key in them', () => {
  test('the key stands where its placeholder was, and nothing else than a key does', () => {
    expect(filled('Bearer KEY, KEY', 'KEY', 'ty_1')).toBe('Bearer ty_1, ty_1')
    expect(filled('Bearer KEY', 'KEY', '"; rm -rf ~')).toBe('Bearer KEY')
  })

  test('a link carries the key, in the encoding of its client', () => {
    const link = { prefix: 'cursor://x?config=', payload: '{"a":"KEY"}', encoding: 'base64', href: '' }
    const config = decodeURIComponent(clientLink(link, 'KEY', 'ty_1')?.slice(link.prefix.length) ?? '')
    expect(atob(config)).toBe('{"a":"ty_1"}')
    expect(clientLink({ ...link, prefix: 'vscode:mcp?', encoding: 'percent' }, 'KEY', 'ty_1')).toBe(
      'vscode:mcp?%7B%22a%22%3A%22ty_1%22%7D',
    )
  })

  test('a link of another scheme is none', () => {
    expect(
      clientLink({ prefix: 'javascript:', payload: '', encoding: 'percent', href: '' }, 'K', 'k'),
    ).toBeUndefined()
  })
})
