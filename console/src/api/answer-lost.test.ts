// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from 'vitest'
import { AnswerLost, callToChange, callToSave } from './answer-lost'
import { isProblem } from './client'
import { streamLost } from './connection'
import { operation } from './operation'

const RESTART = operation<{ path: { name: string }; query: undefined; body: undefined }, void>(
  'restart_it',
  'POST',
  '/api/v1/servers/{name}/restart',
  'nothing',
  undefined,
)

afterEach(() => {
  streamLost(undefined)
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

function thrownWhen(answer: () => Promise<Response>): Promise<unknown> {
  vi.stubGlobal('fetch', answer)
  return callToChange(RESTART, { path: { name: 'time' } }).catch((error: unknown) => error)
}

const refusal = (status: number, code: string) => () =>
  Promise.resolve(Response.json({ type: '', title: 'x', detail: 'x', status, code }, { status }))

test('of a change whose answer was lost it is said that nobody knows whether it was done', async () => {
  const lost = {
    'the connection was cut': () => Promise.reject(new TypeError('the connection was cut')),
    'a proxy answered': () => Promise.resolve(new Response('<html>', { status: 502 })),
    'the database did not answer in time': refusal(503, 'store_unavailable'),
  }
  for (const [what, answer] of Object.entries(lost)) {
    const error = await thrownWhen(answer)
    expect(error, what).toBeInstanceOf(AnswerLost)
    expect(error, what).toMatchObject({ title: 'It is not known whether that was done' })
    expect((error as AnswerLost).detail, what).toContain('this page shows what became of it')
  }
})

test('a change that was refused is a refusal', async () => {
  for (const [status, code] of [
    [409, 'conflict'],
    [503, 'shutting_down'],
    [500, 'internal'],
  ] as const) {
    const error = await thrownWhen(refusal(status, code))
    expect(isProblem(error, status)).toBe(true)
  }
  const error = await thrownWhen(() => Promise.resolve(new Response('<html>', { status: 413 })))
  expect(isProblem(error, 413)).toBe(true)
})

test('what became of it is known once there was a connection to Toolyard for a while', async () => {
  const cut = () => Promise.reject(new TypeError('the connection was cut'))
  const error = (await thrownWhen(cut)) as AnswerLost
  vi.useFakeTimers()
  let known = false
  void error.known().then(() => {
    known = true
  })
  await vi.advanceTimersByTimeAsync(9_000)
  streamLost(Date.now())
  await vi.advanceTimersByTimeAsync(60_000)
  expect(known).toBe(false)
  streamLost(undefined)
  await vi.advanceTimersByTimeAsync(9_000)
  expect(known).toBe(false)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(known).toBe(true)
})

test('a form whose answer was lost is told to send it again, with the same result', async () => {
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('the connection was cut')))
  const error = await callToSave(
    RESTART,
    { path: { name: 'time' } },
    'It is not known whether x is kept',
  ).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(AnswerLost)
  expect(error).toMatchObject({ title: 'It is not known whether x is kept' })
  expect((error as AnswerLost).detail).toContain('send it again as it is')
})
