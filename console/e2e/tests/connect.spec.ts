import { check } from '../support/check.ts'
import { callTool } from '../support/mcp-client.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN } from '../support/toolyard.ts'

test('a real client connects with the address and key of the page, and its first call is noticed', {
  tag: '@main',
}, async ({ open }) => {
  // A session of its own: to make a key, the password must have been given a short while ago.
  const app = await open({ person: ADMIN })
  await app.goto('/connect/time')
  const main = app.byRole('main')
  await main.byLabel('Name of the key').fill(`client-${app.engine}`)
  await check(app, 'Connect', 'no key yet')
  await main.byRole('button', 'Make the key').click()
  await main.byText('Waiting for first call').first().waitFor()
  await check(app, 'Connect', 'waiting')
  const said = await main.text()
  const key = /\bty_[0-9a-f]{64}\b/.exec(said)?.[0] ?? ''
  const url = new RegExp(`${app.origin}/mcp/[\\w/-]+`).exec(said)?.[0] ?? ''
  const { tools, text } = await callTool(url, key, /^get_current_time$/, { timezone: 'UTC' })
  expect(tools).toContain('get_current_time')
  expect(text).toContain('UTC')
  await main.byText('the first call arrived').first().waitFor('visible', 20)
  await check(app, 'Connect', 'connected')
})
