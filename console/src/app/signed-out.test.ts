import { expect, test } from 'vitest'
import { answerSignIn, askToSignIn } from './signed-out'

test('everything that meets the end of a session waits for one answer', async () => {
  const both = Promise.all([askToSignIn(true), askToSignIn(false)])
  answerSignIn(true)
  expect(await both).toEqual([true, true])
})

test('after it was declined only what a person does asks again', async () => {
  const first = askToSignIn(false)
  answerSignIn(false)
  expect(await first).toBe(false)
  expect(await askToSignIn(false)).toBe(false)
  const change = askToSignIn(true)
  answerSignIn(true)
  expect(await change).toBe(true)
})
