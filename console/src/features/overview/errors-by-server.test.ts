import { expect, test } from 'vitest'
import { errorsByServer } from './errors-by-server'

test('the server with the most failed calls comes first, and calls that reached none are told apart', () => {
  const of = (server_name: string | null, count: number) =>
    Array.from({ length: count }, () => ({ server_name }))
  expect(errorsByServer([...of('b', 2), ...of(null, 3), ...of('a', 2), ...of('c', 7)])).toEqual([
    { server: 'c', count: 7 },
    { server: undefined, count: 3 },
    { server: 'a', count: 2 },
    { server: 'b', count: 2 },
  ])
  expect(errorsByServer([])).toEqual([])
})
