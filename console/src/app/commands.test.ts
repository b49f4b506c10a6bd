import { expect, test } from 'vitest'
import { fitting, furtherPages, ranked } from './commands'
import { navigation } from './navigation'

test('what begins with what was typed comes first, then what only holds it', () => {
  const names = ['my-time', 'time-zones', 'Time', 'files']
  expect(fitting(names, ' TIME')).toEqual(['Time', 'time-zones', 'my-time'])
  expect(fitting(names, 'nothing')).toEqual([])
})

test('servers of that name come before those that were found by their entry', () => {
  const found = ['a-clock', 'b-clock', 'my-time', 'time']
  expect(ranked(found, 'Time')).toEqual(['time', 'my-time', 'a-clock', 'b-clock'])
})

test('no page is found twice', () => {
  const pages = [...navigation().flatMap(({ items }) => items), ...furtherPages()]
  expect(new Set(pages.map(({ to }) => to)).size).toBe(pages.length)
  expect(new Set(pages.map(({ label }) => label)).size).toBe(pages.length)
})
