import { describe, expect, test } from 'vitest'
import { bytesOfBase64, contentOf, fileName, MOST_PARTS } from './content'

describe('the parts of an answer', () => {
  test('each part by its type, and a strange one as it is', () => {
    const parts = contentOf({
      content: [
        { type: 'text', text: 'a' },
        { type: 'image', data: 'AA==', mimeType: 'image/png' },
        { type: 'resource_link', uri: 'a:b', name: 'B' },
        { type: 'resource', resource: { uri: 'a:c', text: 'c' } },
        { type: 'hologram' },
        7,
      ],
    })
    expect(parts.map((part) => part.kind)).toEqual([
      'text',
      'image',
      'link',
      'resource',
      'unknown',
      'unknown',
    ])
  })

  test('a prompt is its messages, a resource its contents', () => {
    expect(contentOf({ messages: [{ role: 'user', content: { type: 'text', text: 'hi' } }] })).toEqual([
      { kind: 'text', text: 'hi', role: 'user' },
    ])
    const blob = (mimeType: string, data: string) =>
      contentOf({ contents: [{ uri: 'a:b', mimeType, blob: data }] })
    expect(blob('text/plain', btoa('words'))).toMatchObject([{ kind: 'resource', text: 'words' }])
    expect(blob('text/plain', btoa('\xff\xfe'))).toMatchObject([{ kind: 'file' }])
    expect(blob('image/png', 'AA==')).toMatchObject([{ kind: 'image' }])
    // SVG may hold anything: it is saved, not shown.
    expect(blob('image/svg+xml', 'AA==')).toMatchObject([{ kind: 'file' }])
  })

  test('a flood is bounded, and what is no Base64 is none', () => {
    expect(contentOf({ content: Array.from({ length: 10_000 }, () => ({})) })).toHaveLength(MOST_PARTS)
    expect(bytesOfBase64('<svg>')).toBeUndefined()
  })

  test('a saved file has a harmless name', () => {
    expect(fileName('demo://a/b/notes.md?x=1', 'text/markdown')).toBe('notes.md')
    expect(fileName('a:../../.bashrc', '')).toBe('bashrc.bin')
    expect(fileName('', 'text/plain')).toBe('result.txt')
    expect(fileName('a/..%2f<script>', 'image/svg+xml')).toMatch(/^[\w-]+\.svg$/)
  })
})
