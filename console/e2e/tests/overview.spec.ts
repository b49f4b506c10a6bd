import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { callTool } from '../support/mcp-client.ts'
import { expect, test } from '../support/test.ts'
import { BOOTSTRAP_KEY } from '../support/toolyard.ts'
import { waitFor } from '../support/wait.ts'

test('the errors of the last hour lead to the servers that they are of, also to one that is ready', {
  tag: '@main',
}, async ({ app, toolyard }) => {
  const { mcp_path: path } = await toolyard.api.send<{ mcp_path: string }>('GET', '/servers/time')
  // A tool that says that it failed; what the client makes of that is not looked at here.
  await callTool(toolyard.url + path, BOOTSTRAP_KEY, /^get_current_time$/, {
    timezone: 'Nowhere/At_all',
  }).catch(() => undefined)
  await waitFor('the call is recorded', async () => {
    const { items } = await toolyard.api.send<{ items: { outcome: string }[] }>('GET', '/calls?server=time')
    return items.some(({ outcome }) => outcome !== 'ok')
  })
  await app.goto('/')
  const shell = new Shell(app)
  await shell.heading('Overview').waitFor()
  await app.byRole('main').byRole('button', 'Which servers?').click()
  const time = app.byRole('list', 'Errors by server').byRole('link', /^time$/)
  await time.waitFor()
  await check(app, '/', 'errors by server')
  await time.click()
  await shell.heading('time').waitFor()
  expect(await app.path()).toMatch(/^\/servers\/time\/metrics/)
})

test('what was done stays on the overview however many pages speak MCP', async ({ app, toolyard }) => {
  const shell = new Shell(app)
  await toolyard.api.send('PUT', '/credentials/just-done', { secret: 'not-a-real-secret' })
  for (let visit = 0; visit < 12; visit += 1) {
    await app.goto('/playground/time')
    await app.byRole('main').byText('get_current_time').first().waitFor('visible', 20)
  }
  await app.goto('/')
  await shell.heading('Overview').waitFor()
  const activity = app.byRole('region', 'Recent activity')
  await activity.byText('just-done').first().waitFor()
  expect(await activity.byText('Nobody did anything yet.').count()).toBe(0)
})
