import { expect, test } from 'vitest'
import { fitting, furtherPages } from './commands'
import { navigation } from './navigation'

test('what begins with what was typed comes first, then what only holds it', () => {
  const names = ['my-time', 'time-zones', 'Time', 'files']
  expect(fitting(names, ' TIME', 8)).toEqual(['Time', 'time-zones', 'my-time'])
  expect(fitting(names, 'time', 2)).toHaveLength(2)
  expect(fitting(names, 'nothing', 8)).toEqual([])
})

test('no page is found twice', () => {
  const pages = [...navigation().flatMap(({ items }) => items), ...furtherPages()]
  expect(new Set(pages.map(({ to }) => to)).size).toBe(pages.length)
  expect(new Set(pages.map(({ label }) => label)).size).toBe(pages.length)
})
