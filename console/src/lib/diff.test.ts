import { expect, test } from 'vitest'
import { diffLines } from './diff'

const signs = (before: string, after: string) =>
  diffLines(before, after)
    .map((line) => ({ same: ' ', added: '+', removed: '-' })[line.kind] + line.text)
    .join('|')

test('equal lines are kept, changed ones are removed and added', () => {
  expect(signs('a\nb\nc', 'a\nx\nc')).toBe(' a|-b|+x| c')
  expect(signs('a\nb', 'a\nb')).toBe(' a| b')
  expect(signs('a\nc', 'a\nb\nc')).toBe(' a|+b| c')
})

test('numbers of lines count on both sides', () => {
  expect(diffLines('a\nb\nc', 'b\nc').map((line) => [line.before, line.after])).toEqual([
    [1, undefined],
    [2, 1],
    [3, 2],
  ])
})

test('texts too large to align are still complete', () => {
  const lines = (from: number) => Array.from({ length: 3000 }, (_, at) => `line ${from + at}`).join('\n')
  expect(diffLines(lines(0), lines(10_000))).toHaveLength(6000)
})
