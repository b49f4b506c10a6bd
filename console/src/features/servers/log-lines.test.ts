import { expect, test } from 'vitest'
import { ApiProblem } from '@/api/client'
import { asText, Continuation, isCutOff, isFinal, LogParser } from './log-lines'

const problem = (status: number, code = 'x') => new ApiProblem({ code, title: 'x', detail: 'x', status })
const bytes = (text: string) => new TextEncoder().encode(text)
const line = (at: string, text: string) => ({ at, stream: 'stderr' as const, text })
const written = (at: string, text: string) => `${JSON.stringify(line(at, text))}\n`

test('reads lines that arrive in pieces', () => {
  const parser = new LogParser()
  const whole = bytes(written('2026-01-01T00:00:00.000Z', 'grüße'))
  // The cut is within a character of two bytes.
  const cut = whole.indexOf(0xc3) + 1
  expect(parser.push(whole.slice(0, cut))).toEqual([])
  expect(parser.push(whole.slice(cut))).toEqual([line('2026-01-01T00:00:00.000Z', 'grüße')])
})

test('leaves out what is no line of a log', () => {
  const parser = new LogParser()
  expect(parser.push(bytes('\nnot json\n{"at":1}\n[]\n'))).toEqual([])
  expect(parser.push(bytes(written('2026-01-01T00:00:00.000Z', 'a')))).toHaveLength(1)
})

test('continues after the last line that is known', () => {
  const known = [line('2026-01-01T00:00:00.000Z', 'a'), line('2026-01-01T00:00:00.001Z', 'b')]
  const continuation = new Continuation(known)
  const again = [
    ...known,
    line('2026-01-01T00:00:00.001Z', 'written in the same millisecond'),
    line('2026-01-01T00:00:00.002Z', 'c'),
  ]
  expect(again.filter((one) => continuation.isNew(one)).map((one) => one.text)).toEqual([
    'written in the same millisecond',
    'c',
  ])
})

test('everything is new at first', () => {
  expect(new Continuation([]).isNew(line('2026-01-01T00:00:00.000Z', 'a'))).toBe(true)
})

test('writes a file of lines', () => {
  expect(asText([line('2026-01-01T00:00:00.000Z', 'a')])).toBe('2026-01-01T00:00:00.000Z stderr a\n')
})

test('a log is cut off while Toolyard is away, and not because there is no more of it', () => {
  // A stream that breaks is an error of the browser's; the next attempt has no answer, or a proxy's.
  for (const error of [new TypeError('network error'), problem(0), problem(502)])
    expect(isCutOff({ kind: 'again', error }, false)).toBe(true)
  // Toolyard answers, and has no connection to the agent.
  for (const error of [problem(503, 'server_not_ready'), problem(502, 'upstream_failed')])
    expect(isCutOff({ kind: 'again', error }, false)).toBe(false)
  // The stream of the log may not know yet what the page knows.
  expect(isCutOff({ kind: 'live' }, true)).toBe(true)
  expect(isCutOff({ kind: 'live' }, false)).toBe(false)
  expect(isCutOff({ kind: 'again', error: undefined }, false)).toBe(false)
  expect(isCutOff({ kind: 'again', error: problem(404) }, false)).toBe(false)
  expect(isCutOff({ kind: 'ended' }, true)).toBe(false)
  expect(isCutOff({ kind: 'failed', error: problem(403) }, true)).toBe(false)
})

test('a log that stayed on a removed toolbox is not asked for again, and one of an agent that is away is', () => {
  for (const chosen of [true, false]) {
    expect(isFinal(problem(409), chosen)).toBe(true)
    expect(isFinal(problem(503), chosen)).toBe(false)
  }
  expect(isFinal(problem(404, 'not_found'), true)).toBe(true)
  expect(isFinal(problem(404, 'not_found'), false)).toBe(false)
})

test('a chosen log is asked for again while only what stands before Toolyard has none', () => {
  expect(isFinal(problem(404, 'unexpected_answer'), true)).toBe(false)
})
