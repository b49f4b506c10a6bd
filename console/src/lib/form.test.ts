import { expect, test } from 'vitest'
import { same, sortRefusal, takenAt } from './form'

test('field errors of the server go to their fields, and the rest is said for the whole form', () => {
  const error = {
    errors: [
      { field: 'name', message: 'is taken' },
      { field: 'environment.KEY', message: 'is missing' },
    ],
  }
  expect(sortRefusal(error, ['name', 'environment'])).toEqual({
    fields: { name: 'It is taken', 'environment.KEY': 'It is missing' },
    rest: false,
  })
  expect(sortRefusal(error, ['name'])).toEqual({ fields: { name: 'It is taken' }, rest: true })
  expect(sortRefusal(new Error('no answer'), ['name'])).toEqual({ fields: {}, rest: true })
})

test('values are compared by what they hold', () => {
  expect(same({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] })).toBe(true)
  expect(same({ a: 1 }, { a: 1, b: undefined })).toBe(false)
  expect(same([], {})).toBe(false)
})

test('that there is one already is said at its field, and nothing else is', () => {
  const taken = takenAt('name', 'There is one')
  const other = { code: 'conflict' }
  let said: unknown
  try {
    taken({ code: 'already_exists' })
  } catch (error) {
    said = error
  }
  expect(sortRefusal(said, ['name'])).toEqual({ fields: { name: 'There is one' }, rest: false })
  expect(() => taken(other)).toThrow()
})
