import { Shell } from '../pages/shell.ts'
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
