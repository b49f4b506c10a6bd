import { expect, test } from 'vitest'
import { auditQuery, fromLocalInput, isFiltered, toLocalInput } from './audit-filter'

const NOW = Date.parse('2026-11-22T12:00:00.000Z')

test('a range counts back from when it was chosen', () => {
  expect(auditQuery({ range: '24h' }, NOW)).toEqual({ since: '2026-11-21T12:00:00.000Z' })
})

test('a range goes before two times', () => {
  expect(auditQuery({ range: '1h', since: '2020-01-01T00:00:00.000Z', until: 'x' }, NOW)).toEqual({
    since: '2026-11-22T11:00:00.000Z',
  })
})

test('an open line is no filter', () => {
  expect(isFiltered({ line: '1' })).toBe(false)
  expect(isFiltered({ actor: 'ada@example.test' })).toBe(true)
})

test('a time survives the way through the input, to the minute', () => {
  const at = '2026-11-22T11:34:00.000Z'
  expect(fromLocalInput(toLocalInput(at))).toBe(at)
  expect(toLocalInput('nonsense')).toBe('')
  expect(fromLocalInput('nonsense')).toBeUndefined()
})
