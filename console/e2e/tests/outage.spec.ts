import { Servers } from '../pages/servers.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, TIME, Toolyard } from '../support/toolyard.ts'

test('without a network the last known state stays, with its age, and recovers', async ({
  app,
  toolyard,
}) => {
  const name = 'made-meanwhile'
  const shell = new Shell(app)
  const servers = new Servers(app)
  await app.goto('/servers')
  await servers.row('everything').waitFor()
  try {
    await app.setOffline(true)
    await shell.disconnected().waitFor('visible', 20)
    expect(await servers.row('everything').isVisible()).toBe(true)
    await check(app, 'Servers', 'offline')
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    await app.setOffline(false)
    await shell.disconnected().waitFor('hidden', 30)
    await servers.row(name).waitFor('visible', 20)
  } finally {
    await app.setOffline(false)
    await toolyard.api.remove(name)
  }
})

test('when Toolyard dies the page says so, and goes on when it is back', { tag: '@main' }, async ({
  open,
}) => {
  test.setTimeout(90_000)
  const toolyard = await Toolyard.start()
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'before', start: false })
    const page = await open({ toolyard, person: ADMIN })
    const shell = new Shell(page)
    const servers = new Servers(page)
    await page.goto('/servers')
    await servers.row('before').waitFor()
    await toolyard.stop('SIGKILL')
    await shell.disconnected().waitFor('visible', 20)
    expect(await servers.row('before').isVisible()).toBe(true)
    await check(page, 'Servers', 'Toolyard is down')
    await toolyard.serve()
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'after', start: false })
    await shell.disconnected().waitFor('hidden', 30)
    await servers.row('after').waitFor('visible', 20)
  } finally {
    await toolyard.dispose()
  }
})
