import { expect, test } from 'vitest'
import { AnswerLost } from './answer-lost'
import { ApiProblem, isProblem } from './client'
import { makeOnce } from './once'

const lost = new ApiProblem({ code: 'unreachable', title: 'x', detail: 'x', status: 0 })

/** Notes the key of each request, and loses the answers of those that it is told to. */
function sender() {
  let made = 0
  const once = makeOnce(() => `key-${++made}`)
  const keys: string[] = []
  const send = (request: unknown, answered = true) =>
    once(request, (key) => {
      keys.push(key)
      return answered ? Promise.resolve(key) : Promise.reject(lost)
    }).catch(() => undefined)
  return { keys, send }
}

test('a creation whose answer was lost is sent again as the same one', async () => {
  const { keys, send } = sender()
  await send({ name: 'a' }, false)
  await send({ name: 'a' }, false)
  await send({ name: 'a' })
  expect(keys).toEqual(['key-1', 'key-1', 'key-1'])
})

test('of a creation whose answer was lost nobody says that it failed, and it may be sent again', async () => {
  const thrownBy = (error: ApiProblem) =>
    makeOnce(() => 'key')({ name: 'a' }, () => Promise.reject(error)).catch((thrown: unknown) => thrown)
  const said = await thrownBy(lost)
  expect(said).toBeInstanceOf(AnswerLost)
  expect((said as AnswerLost).detail).toContain('send it again as it is')
  const refused = new ApiProblem({ code: 'already_exists', title: 'x', detail: 'x', status: 409 })
  expect(await thrownBy(refused)).toBe(refused)
  // Sent again it would be answered as now: the console that understands the answer comes with another page.
  const unread = new ApiProblem({ code: 'unexpected_answer', title: 'x', detail: 'x', status: 201 })
  expect(isProblem(await thrownBy(unread), 201)).toBe(true)
})

test('one that says something else, or was answered, is another one', async () => {
  const { keys, send } = sender()
  await send({ name: 'a' }, false)
  await send({ name: 'b' })
  await send({ name: 'b' })
  expect(keys).toEqual(['key-1', 'key-2', 'key-3'])
})
