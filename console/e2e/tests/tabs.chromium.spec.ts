/** Tabs of one browser share its session. One driver opens several tabs of it: Chromium's. */
import { Shell } from '../pages/shell.ts'
import { SignIn } from '../pages/sign-in.ts'
import { check } from '../support/check.ts'
import type { ConsolePage } from '../support/page.ts'
import { PlaywrightPage } from '../support/playwright-page.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, TIME } from '../support/toolyard.ts'

const OPERATOR = { email: 'tabs@example.test', password: 'correct-horse-battery', role: 'operator' }

/** The page says that it is of this person. */
async function isOf(page: ConsolePage, email: string): Promise<void> {
  await page.byRole('button', email).first().waitFor()
}

test('who signs out and in as somebody else in a later tab does so in all, and no form is sent as them', async ({
  open,
  toolyard,
}) => {
  const name = 'filled-in-by-another'
  await toolyard.api.send('POST', '/members', OPERATOR).catch(() => undefined)
  await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
  const settings = async () => JSON.stringify(await toolyard.api.send('GET', `/servers/${name}/settings`))
  try {
    const before = await settings()
    const first = await open({ person: OPERATOR })
    if (!(first instanceof PlaywrightPage)) throw new Error('this test is for Chromium')
    const tab = () => PlaywrightPage.open(first.context, first.engine, first.version, first.origin)
    await first.goto(`/servers/${name}/settings`)
    await first.byRole('main').byLabel('Memory').first().fill('621')
    const second = await tab()
    await second.goto('/credentials')
    await new Shell(second).heading('Credentials').waitFor()
    const third = await tab()
    await third.goto('/servers')
    await new Shell(third).heading('Servers').waitFor()

    await new Shell(third).signOut()
    await new SignIn(second).waitFor()
    await first.byRole('dialog', 'Your session ended').waitFor()

    await new SignIn(third).waitFor()
    await new SignIn(third).as(ADMIN.email, ADMIN.password)
    await isOf(second, ADMIN.email)
    await new Shell(second).heading('Credentials').waitFor()
    const another = first.byRole('dialog', 'Somebody else signed in')
    await another.waitFor()
    await check(first, 'Server settings', 'somebody else signed in')
    await first.press('Escape')
    await another.waitFor('hidden')
    await first.byRole('button', /^Save/).first().click()
    await another.waitFor()
    expect(await settings()).toBe(before)

    // The person who filled it in comes back, and it is sent as them.
    await another.byLabel(/^Password of/).fill(OPERATOR.password)
    await another.byRole('button', /^Sign in as/).click()
    await another.waitFor('hidden')
    await expect.poll(settings).not.toBe(before)
    const left = third.byRole('dialog', 'Somebody else signed in')
    await left.waitFor()
    await left.byRole('button', /^Go on as/).click()
    await isOf(third, OPERATOR.email)
  } finally {
    await toolyard.api.remove(name)
  }
})
