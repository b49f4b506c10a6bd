import { ServerPage } from '../pages/server.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { TIME } from '../support/toolyard.ts'

test('a change made elsewhere shows in two open browsers within a second', async ({ open, toolyard }) => {
  const pages = [await open(), await open()]
  for (const page of pages) {
    await page.goto('/servers')
    await new Shell(page).heading('Servers').waitFor()
    await page.byRole('main').byText('everything').first().waitFor()
  }
  const name = `live-${test.info().project.name}`
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    await Promise.all(pages.map((page) => page.byRole('main').byText(name).waitFor('visible', 1)))
    await toolyard.api.send('DELETE', `/servers/${name}`)
    await Promise.all(pages.map((page) => page.byRole('main').byText(name).waitFor('hidden', 1)))
  } finally {
    await toolyard.api.remove(name)
  }
  expect(toolyard.log()).not.toContain('panicked')
})

test('the pages of what somebody else deleted say that it is gone, and offer nothing to do with it', async ({
  open,
  toolyard,
}) => {
  const name = `gone-${test.info().project.name}`
  const toolset = `${name}-toolset`
  await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
  await toolyard.api.send('POST', '/toolsets', { name: toolset, members: [{ server: 'time' }] })
  try {
    const pages = {
      server: await open(),
      revisions: await open(),
      toolset: await open(),
      connect: await open(),
    }
    const server = new ServerPage(pages.server, name)
    await server.goto()
    await server.waitForState('Stopped')
    await new ServerPage(pages.revisions, name).goto('/revisions')
    await pages.toolset.goto(`/toolsets/${toolset}`)
    await new Shell(pages.toolset).heading(toolset).waitFor()
    await pages.connect.goto(`/connect/${name}`)
    await new Shell(pages.connect).heading(name).waitFor()
    await toolyard.api.send('DELETE', `/toolsets/${toolset}`)
    await toolyard.api.remove(name)
    for (const page of Object.values(pages)) {
      await new Shell(page).heading('Not found').waitFor('visible', 20)
      await page
        .byRole('main')
        .byText(/does not exist/)
        .first()
        .waitFor()
      expect(await page.byRole('main').byRole('button').count()).toBe(0)
    }
    await check(pages.server, 'Server', 'deleted elsewhere')
  } finally {
    await toolyard.api.send('DELETE', `/toolsets/${toolset}`).catch(() => undefined)
    await toolyard.api.remove(name)
  }
})
