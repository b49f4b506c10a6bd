/** What the tests that look at every page want to see there. May be called again. */
import { ApiError, type Toolyard } from './toolyard.ts'

export async function arrange(toolyard: Toolyard): Promise<void> {
  const { api } = toolyard
  await once(() =>
    api.send('POST', '/toolsets', {
      name: 'all',
      description: 'Everything that runs here',
      members: [{ server: 'everything' }, { server: 'time' }],
    }),
  )
  await api.send('PUT', '/credentials/example', { secret: 'not-a-real-secret' })
}

async function once(create: () => Promise<unknown>): Promise<void> {
  try {
    await create()
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 409)) throw error
  }
}
