import { expect, test } from 'vitest'
import { same, sortRefusal } from './form'

test('field errors of the server go to their fields, and the rest is said for the whole form', () => {
  const error = {
    errors: [
      { field: 'name', message: 'is taken' },
      { field: 'environment.KEY', message: 'is missing' },
    ],
  }
  expect(sortRefusal(error, ['name', 'environment'])).toEqual({
    fields: { name: 'is taken', 'environment.KEY': 'is missing' },
    rest: false,
  })
  expect(sortRefusal(error, ['name'])).toEqual({ fields: { name: 'is taken' }, rest: true })
  expect(sortRefusal(new Error('no answer'), ['name'])).toEqual({ fields: {}, rest: true })
})

test('values are compared by what they hold', () => {
  expect(same({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] })).toBe(true)
  expect(same({ a: 1 }, { a: 1, b: undefined })).toBe(false)
  expect(same([], {})).toBe(false)
})
