import { expect, test } from 'vitest'
import { ApiProblem } from '@/api/client'
import { isPassing } from './recover'

const problem = (status: number) => new ApiProblem({ code: 'x', title: 'x', detail: 'x', status })

test('what comes of a Toolyard that does not answer passes, in the words of every browser', () => {
  for (const message of [
    'Failed to fetch dynamically imported module: https://toolyard.test/assets/metrics-1.js',
    'error loading dynamically imported module: https://toolyard.test/assets/metrics-1.js',
    'Importing a module script failed.',
    'Unable to preload CSS for /assets/metrics-1.css',
  ])
    expect(isPassing(new TypeError(message))).toBe(true)
  expect(isPassing(problem(0))).toBe(true)
  expect(isPassing(problem(503))).toBe(true)
})

test('what Toolyard said, or what is wrong in the page itself, does not', () => {
  expect(isPassing(problem(404))).toBe(false)
  expect(isPassing(problem(500))).toBe(false)
  expect(isPassing(new TypeError('x is undefined'))).toBe(false)
})
