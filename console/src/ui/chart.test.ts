// @vitest-environment happy-dom
import { expect, test } from 'vitest'
import { summary } from './chart'

const format = (value: number) => `${value} ms`

test('the words for a chart say of now what the chart shows of now', () => {
  const series = (values: Array<number | null>) => [{ label: 'p95', values, tone: 'info' as const }]
  expect(summary('Times', series([3, 1]), format)).toBe('Times. p95: now 1 ms, highest 3 ms')
  expect(summary('Times', series([3, 1, null]), format)).toBe('Times. p95: no value now, highest 3 ms')
  expect(summary('Times', series([null]), format)).toBe('Times. p95: no values')
})
