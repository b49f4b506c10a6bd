import { expect, test } from 'vitest'
import { ApiProblem } from './client'
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

test('one that says something else, or was answered, is another one', async () => {
  const { keys, send } = sender()
  await send({ name: 'a' }, false)
  await send({ name: 'b' })
  await send({ name: 'b' })
  expect(keys).toEqual(['key-1', 'key-2', 'key-3'])
})
