/** Every page on the engines that `pages.chromium.spec.ts` leaves out: it opens, fits every width, and has no errors. */
import { ROUTES } from '../routes.ts'
import { arrange } from '../support/arrange.ts'
import { checkWidths, expectOpened } from '../support/check.ts'
import { test } from '../support/test.ts'

test.describe.configure({ mode: 'parallel' })

/** Several at once, so that both workers have their part. */
const PARTS = 4

for (let part = 0; part < PARTS; part += 1) {
  const routes = ROUTES.filter((_, index) => index % PARTS === part)
  test(`all pages open at every width, part ${part + 1} of ${PARTS}`, { tag: '@main' }, async ({
    open,
    toolyard,
  }) => {
    test.setTimeout(180_000)
    await arrange(toolyard)
    const page = await open()
    // Those for people who have not signed in come last.
    for (const route of routes.sort((a, b) => Number(a.open) - Number(b.open))) {
      await test.step(route.name, async () => {
        if (route.open) await page.clearCookies()
        await expectOpened(page, route)
        await checkWidths(page, route.name)
      })
    }
  })
}
