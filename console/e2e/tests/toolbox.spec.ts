import { ServerPage } from '../pages/server.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { TIME } from '../support/toolyard.ts'

test('what a toolbox enforces names settings and files as code', async ({ app }) => {
  await app.goto('/toolboxes/local')
  await new Shell(app).heading('local').waitFor()
  await app.byRole('region', 'What it enforces').waitFor()
  expect(await app.byRole('main').text()).not.toContain('`')
})

test('before a toolbox is removed it is said which servers must run there', async ({ app, toolyard }) => {
  const [edge, name] = ['edge-to-go', 'bound-to-edge']
  await toolyard.api.send('POST', '/toolboxes', { name: edge })
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, toolbox: edge, start: false })
    await app.goto(`/toolboxes/${edge}`)
    const page = new ServerPage(app, edge)
    await page.heading().waitFor()
    await page.menu('Remove')
    await page.dialog().byText(name).first().waitFor()
    await check(app, 'Toolbox', 'removal asked, a server must run there')
    await page.dialog().byLabel('to confirm').fill(edge)
    const remove = page.dialog().byRole('button', /^Remove$/)
    expect(await remove.attribute('aria-disabled')).toBe('true')
    await app.press('Escape')
    await toolyard.api.remove(name)
    await page.menu('Remove')
    await page.dialog().byLabel('to confirm').fill(edge)
    await expect.poll(() => remove.attribute('aria-disabled')).not.toBe('true')
    await page.confirm('Remove')
    await expect.poll(() => app.path()).toMatch(/^\/toolboxes(\?|$)/)
  } finally {
    await toolyard.api.remove(name)
    await toolyard.api.send('DELETE', `/toolboxes/${edge}`).catch(() => undefined)
  }
})

test('a server whose toolbox was removed says so, needs a look, and can be moved', async ({
  app,
  toolyard,
}) => {
  const [edge, name] = ['edge-that-went', 'left-behind']
  await toolyard.api.send('POST', '/toolboxes', { name: edge })
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, toolbox: edge })
    await toolyard.api.send('POST', `/toolboxes/${edge}/drain`, {})
    await app.goto(`/toolboxes/${edge}`)
    const page = new ServerPage(app, edge)
    await page.heading().waitFor()
    await page.menu('Remove')
    await page.dialog().byText('must run there, and nowhere else').first().waitFor()
    await page.dialog().byText('runs nowhere until you move it').first().waitFor()
    await check(app, 'Toolbox', 'removal asked, drained')
    await page.dialog().byLabel('to confirm').fill(edge)
    await page.confirm('Remove')

    await app.goto('/')
    await new Shell(app).heading('Overview').waitFor()
    const needsALook = app.byRole('region', 'Needs a look')
    await needsALook.byRole('link', new RegExp(`^${name}$`)).waitFor('visible', 20)
    await needsALook.byText('the toolbox where it must run was removed').first().waitFor()

    const server = new ServerPage(app, name)
    await server.goto()
    await server.waitForState('Failed')
    await app.byRole('main').byText(`${edge}, which was removed`).first().waitFor()
    await check(app, 'Server', 'its toolbox was removed')
    await app
      .byRole('main')
      .byRole('link', /^Move it$/)
      .click()
    const move = app.byRole('main').byRole('button', /^Move it$/)
    await move.waitFor()
    await check(app, 'Server settings', 'its toolbox was removed')
    // As if somebody chose it: how an open list is drawn and used is each browser's own.
    await app.evaluate(() => {
      const select = document.querySelector<HTMLSelectElement>('#place select')
      if (select === null) throw new Error('there is nothing to choose from')
      select.value = 'local'
      select.dispatchEvent(new Event('change', { bubbles: true }))
    })
    await move.click()
    await toolyard.api.waitServer(name, (one) => one.phase === 'ready')
  } finally {
    await toolyard.api.remove(name)
    await toolyard.api.send('DELETE', `/toolboxes/${edge}`).catch(() => undefined)
  }
})
