import { QueryCache, QueryClient, QueryObserver } from '@tanstack/react-query'
import { expect, test } from 'vitest'
import { ApiProblem } from './client'
import { forgetGone } from './gone'

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
