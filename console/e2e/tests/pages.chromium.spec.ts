/** Every page as it opens: axe in both themes, no sideways scrolling at any width, nothing refused by its policy. */
import { join } from 'node:path'
import { ROUTES } from '../routes.ts'
import { arrange } from '../support/arrange.ts'
import { check, checkWidths, expectOpened, THEMES } from '../support/check.ts'
import { test } from '../support/test.ts'

/** Pages of which the reports show pictures. */
const PICTURED = new Set([
  '/',
  '/servers',
  '/servers/$name',
  '/marketplace',
  '/deploy/$namespace/$name',
  '/playground/$name',
  '/connect/$name',
  '/toolsets/$name',
])

test.describe.configure({ mode: 'parallel' })

for (const route of ROUTES) {
  test(`the page ${route.name} opens at every width and in both themes`, async ({ open, toolyard }) => {
    await arrange(toolyard)
    const page = await open(route.open ? { person: null } : {})
    await expectOpened(page, route)
    await check(page, route.name, 'opened')
    await checkWidths(page, route.name)
    const screenshots = process.env['TOOLYARD_E2E_SCREENSHOTS']
    if (screenshots === undefined || !PICTURED.has(route.name)) return
    const file = route.name === '/' ? 'overview' : route.name.slice(1).replaceAll(/[/$]+/g, '-')
    for (const width of [390, 1440]) {
      await page.setSize(width, width === 390 ? 844 : 900)
      for (const theme of THEMES) {
        await page.evaluate((wanted) => localStorage.setItem('toolyard.theme', wanted), theme)
        await expectOpened(page, route)
        await page.screenshot(join(screenshots, `${file}-${width}-${theme}.png`))
      }
    }
  })
}
