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
