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

test('what has nothing to add to its title is said once', () => {
  const code = 'precondition_failed'
  const facts = errorFacts({
    code,
    title: 'it changed since you read it',
    detail: 'it changed since you read it',
  })
  expect(facts).toMatchObject({ title: 'It changed since you read it', detail: '', code })
})
