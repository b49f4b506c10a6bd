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
