// @vitest-environment happy-dom
import { expect, test } from 'vitest'
import { errorFacts } from './error-state'

test('a page that could not be loaded says that Toolyard does not answer, and no address of a file', () => {
  const facts = errorFacts(
    new TypeError('Failed to fetch dynamically imported module: http://x.test/assets/keys-1.js'),
  )
  expect(facts.title).toBe('Toolyard does not answer')
  expect(facts.detail).not.toContain('x.test')
  expect(facts.code).toBeUndefined()
  expect(errorFacts(new TypeError('x is undefined')).title).toBe('Something went wrong here')
})
