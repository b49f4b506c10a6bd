import { expect, test } from 'vitest'
import { oneLine, parseAnsi, plainText } from './text'

test('direction marks and control characters are made visible', () => {
  expect(plainText('a\u202eb\u0000c\u2066d')).toBe('a[U+202E]b\u2400c[U+2066]d')
  expect(plainText('a\tb\nc')).toBe('a\tb\nc')
})

test('a text is bounded', () => {
  expect(plainText('x'.repeat(50), 10)).toBe(`${'x'.repeat(10)}…`)
  expect(oneLine('a\n  b\tc')).toBe('a b c')
})

test('colours of a terminal become spans, and other sequences disappear', () => {
  expect(
    parseAnsi('\u001b[1;31merror\u001b[0m \u001b]8;;javascript:alert(1)\u0007link\u001b]8;;\u0007\u001b[2J'),
  ).toEqual([{ text: 'error', bold: true, foreground: 1 }, { text: ' ' }, { text: 'link' }])
})

test('a true colour keeps the text and does not eat what follows', () => {
  expect(parseAnsi('\u001b[38;2;1;2;3;1mx')).toEqual([{ text: 'x', bold: true }])
  expect(parseAnsi('\u001b[38;5;9mx')).toEqual([{ text: 'x', foreground: 9 }])
})

test('the end of an escape is looked for only so far, and what follows stays', () => {
  const rest = 'x'.repeat(16_000)
  expect(parseAnsi(`\u001b]${rest}`)).toEqual([{ text: rest }])
  expect(parseAnsi(`\u001b]${'x'.repeat(4096)}\u0007y`)).toEqual([{ text: 'y' }])
  expect(parseAnsi(`\u001b]${'x'.repeat(4097)}\u0007y`)).toEqual([{ text: `${'x'.repeat(4097)}\u2407y` }])
})
