import { QueryCache, QueryClient, QueryObserver } from '@tanstack/react-query'
import { afterEach, expect, test, vi } from 'vitest'
import { ApiProblem } from './client'
import { forgetGone, isGone } from './gone'
import { readGoneAgain } from './gone-again'

const form = vi.hoisted(() => ({ isUnsaved: false, tell: (): void => undefined }))

vi.mock('@/lib/form', () => ({
  hasUnsaved: () => form.isUnsaved,
  watchUnsaved: (watcher: () => void) => {
    form.tell = watcher
    return () => undefined
  },
}))

afterEach(() => {
  form.isUnsaved = false
})

function problem(status: number, code: string): ApiProblem {
  return new ApiProblem({ code, title: 'no such thing', detail: 'server `a` does not exist', status })
}

/** Reads something once, then again with this problem; gives what a page sees. */
async function afterReadingAgain(error: ApiProblem) {
  let answer = () => Promise.resolve('ready')
  const client = new QueryClient({
    queryCache: new QueryCache({ onError: forgetGone }),
    defaultOptions: { queries: { retry: false } },
  })
  const observer = new QueryObserver(client, { queryKey: ['get_server'], queryFn: () => answer() })
  const end = observer.subscribe(() => undefined)
  await observer.refetch()
  answer = () => Promise.reject(error)
  await observer.refetch()
  const { data, status } = observer.getCurrentResult()
  end()
  client.clear()
  return { data, status }
}

test('what is shown of a thing goes when the API says that there is none', async () => {
  expect(await afterReadingAgain(problem(404, 'not_found'))).toEqual({ data: undefined, status: 'error' })
})

test('what is shown stays while Toolyard cannot be reached or something else answers', async () => {
  for (const [status, code] of [
    [0, 'unreachable'],
    [503, 'unavailable'],
    [404, 'unexpected_answer'],
  ] as const)
    expect(await afterReadingAgain(problem(status, code))).toEqual({ data: 'ready', status: 'error' })
})

test('what is gone stays while something typed is not saved, and goes once that was given up', async () => {
  form.isUnsaved = true
  let asked = 0
  const client = new QueryClient({
    queryCache: new QueryCache({ onError: forgetGone }),
    defaultOptions: { queries: { retry: false } },
  })
  const observer = new QueryObserver(client, {
    queryKey: ['get_server'],
    queryFn: () => {
      asked += 1
      return asked === 1 ? Promise.resolve('ready') : Promise.reject(problem(404, 'not_found'))
    },
  })
  const end = observer.subscribe(() => undefined)
  const endGone = readGoneAgain(client)
  await observer.refetch()
  await observer.refetch()
  const kept = observer.getCurrentResult()
  expect(kept.data).toBe('ready')
  expect(isGone(kept.error)).toBe(true)
  form.tell()
  expect(observer.getCurrentResult().data).toBe('ready')
  form.isUnsaved = false
  form.tell()
  await vi.waitFor(() => {
    expect(observer.getCurrentResult().data).toBeUndefined()
    expect(isGone(observer.getCurrentResult().error)).toBe(true)
  })
  endGone()
  end()
  client.clear()
})

/** What was gone while something was typed, and its page left when that was given up; `left` leaves it. */
async function leftWhileGone(left: (leave: () => void, tell: () => void) => void) {
  form.isUnsaved = true
  let answer = (): Promise<string> => Promise.resolve('ready')
  const client = new QueryClient({
    queryCache: new QueryCache({ onError: forgetGone }),
    defaultOptions: { queries: { retry: false } },
  })
  const queryKey = ['get_server']
  const queryFn = ({ signal }: { signal: AbortSignal }) => (signal.aborted ? Promise.reject() : answer())
  const observer = new QueryObserver(client, { queryKey, queryFn })
  const leave = observer.subscribe(() => undefined)
  const endGone = readGoneAgain(client)
  await observer.refetch()
  answer = () => Promise.reject(problem(404, 'not_found'))
  await observer.refetch()
  expect(client.getQueryData(queryKey)).toBe('ready')
  // The next one is under way for as long as somebody looks.
  answer = () => new Promise(() => undefined)
  form.isUnsaved = false
  left(leave, () => form.tell())
  const { data, error } = client.getQueryState(queryKey) ?? {}
  answer = () => Promise.resolve('made anew')
  const later = await client.ensureQueryData({ queryKey, queryFn })
  endGone()
  client.clear()
  return { data, error, later }
}

test('what was left while it was gone is not what the next visit shows', async () => {
  const read = { data: undefined, error: null, later: 'made anew' }
  const before = await leftWhileGone((leave, tell) => {
    leave()
    tell()
  })
  expect(before).toEqual(read)
  // The page goes while what is gone is read again for it.
  const after = await leftWhileGone((leave, tell) => {
    tell()
    leave()
  })
  expect(after).toEqual(read)
})
