import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'

test('a filter of the audit log takes effect while it is typed, and a narrow row tells all of a line', async ({
  open,
}) => {
  const page = await open({ width: 390, height: 844 })
  await page.goto('/audit')
  await new Shell(page).heading('Audit').waitFor()
  await page.byRole('main').byLabel('What').first().focus()
  await page.type('session.creat')
  await page.type('e')
  await expect.poll(() => page.path()).toMatch(/action=session\.create/)
  const row = page
    .byRole('main')
    .byRole('row')
    .containing(/session\.create/)
    .first()
  await row.waitFor()
  expect(await row.text()).toMatch(/done[\s\S]*session\//)
  await check(page, '/audit', 'filtered, narrow')
})

test('on a tablet who did what can be read whole', async ({ open }) => {
  const page = await open({ width: 768, height: 1024 })
  await page.goto('/audit?action=session.create')
  await page
    .byRole('main')
    .byRole('row')
    .containing(/session\.create/)
    .first()
    .waitFor()
  const cut = await page.evaluate(() =>
    [...document.querySelectorAll('main [data-row] td, main [data-row] button')]
      .filter((cell) => cell.scrollWidth > cell.clientWidth && cell.clientWidth > 0)
      .map((cell) => cell.textContent),
  )
  expect(cut).toEqual([])
})

test('on a phone the facts of the environment are no column of a few letters', async ({ open }) => {
  const page = await open({ width: 390, height: 844 })
  for (const width of [390, 320]) {
    await page.setSize(width, 844)
    await page.goto('/settings/environment')
    await page.byRole('main').byText('Calls are served').first().waitFor()
    const narrowest = await page.evaluate(() =>
      Math.min(...[...document.querySelectorAll('main dd')].map((one) => one.clientWidth)),
    )
    expect(narrowest, `at ${width} px`).toBeGreaterThan(110)
  }
})
