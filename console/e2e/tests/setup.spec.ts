import { Shell } from '../pages/shell.ts'
import { SignIn } from '../pages/sign-in.ts'
import { check, checkWidths } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { Toolyard } from '../support/toolyard.ts'
import { waitFor } from '../support/wait.ts'

test('the first person of a new Toolyard replaces the password that it made up', { tag: '@main' }, async ({
  open,
}) => {
  const toolyard = await Toolyard.start(undefined, { TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD: undefined })
  try {
    const [, email = '', password = ''] = await waitFor(
      'the first sign-in is in its file',
      async () => /e-mail address: (\S+)\n# password: (\S+)/.exec(toolyard.firstSignIn()) ?? false,
    )
    const page = await open({ toolyard, person: null })
    await page.goto('/')
    const signIn = new SignIn(page)
    await signIn.as(email, password)
    await page.byRole('main').byRole('heading', 'Make this Toolyard yours').waitFor()
    expect(await page.path()).toBe('/setup')
    await checkWidths(page, '/setup')
    await page.setSize(1440, 900)
    await check(page, 'First start', 'empty')
    await page.byLabel(/^Email/).fill('owner@example.test')
    await page.byLabel(/^Password until now/).fill(password)
    await page.byLabel(/^New password(?! again)/).fill('battery-staple-horse')
    await page.byLabel(/^New password again/).fill('battery-staple')
    await page.byRole('button', 'Save and go on').click()
    await page.byText('It is not the same as above').waitFor()
    await check(page, 'First start', 'refused')
    await page.byLabel(/^New password again/).fill('battery-staple-horse')
    await page.byRole('button', 'Save and go on').click()
    await new Shell(page).heading('Overview').waitFor()
    await page.clearCookies()
    await page.goto('/')
    await signIn.as('owner@example.test', 'battery-staple-horse')
    await new Shell(page).heading('Overview').waitFor()
  } finally {
    await toolyard.dispose()
  }
})
