import { Deploy } from '../pages/deploy.ts'
import { Servers } from '../pages/servers.ts'
import { Shell } from '../pages/shell.ts'
import { SignIn } from '../pages/sign-in.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, TIME } from '../support/toolyard.ts'

test('a person signs in with e-mail address and password and sees the overview', {
  tag: '@main',
}, async ({ visitor }) => {
  const signIn = new SignIn(visitor)
  await visitor.goto('/')
  await signIn.waitFor()
  // Nobody's session ended; whoever comes first is told where the password is.
  await visitor.byText('in its terminal, or names the file').waitFor()
  await visitor.byText('admin@localhost').waitFor()
  await check(visitor, 'Sign in', 'empty')
  await signIn.as(ADMIN.email, ADMIN.password)
  await expect.poll(() => visitor.path()).toBe('/')
  await new Shell(visitor).heading('Overview').waitFor()
})

test('a wrong password says so and keeps the e-mail address', { tag: '@main' }, async ({ visitor }) => {
  const signIn = new SignIn(visitor)
  await visitor.goto('/sign-in')
  // An address of its own, because failures of one address are counted.
  await signIn.as('somebody@example.test', 'wrong-horse-battery')
  await signIn.problem().waitFor()
  expect(await signIn.problem().text()).toMatch(/password/i)
  expect(await visitor.byLabel(/^Email/).value()).toBe('somebody@example.test')
  expect(await visitor.path()).toMatch(/^\/sign-in/)
  await check(visitor, 'Sign in', 'refused')
})

test('a session that ended leads to sign-in and back to the page', { tag: '@main' }, async ({
  open,
  toolyard,
}) => {
  const name = 'made-without-a-session'
  const page = await open({ person: ADMIN })
  const servers = new Servers(page)
  await page.goto('/servers')
  await servers.row('everything').waitFor()
  await page.clearCookies()
  try {
    // The page hears of it, asks, and so learns that its session is no more.
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    const signIn = new SignIn(page)
    await signIn.waitFor()
    await page.byText('Your session ended').waitFor()
    await check(page, 'Sign in', 'after a session ended')
    await signIn.as(ADMIN.email, ADMIN.password)
    await servers.row(name).waitFor()
    expect(await page.path()).toMatch(/^\/servers/)
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a session that ended is signed in again over what was typed, and the change goes on', {
  tag: '@main',
}, async ({ open, toolyard }) => {
  const name = 'typed-before-the-end'
  const page = await open({ person: ADMIN })
  const deploy = new Deploy(page)
  await page.goto(`/deploy/${TIME}`)
  await deploy.name(name)
  await deploy.review()
  await page.byRole('button', /^Deploy$/).waitFor()
  await page.clearCookies()
  try {
    await deploy.deploy()
    const dialog = page.byRole('dialog', 'Your session ended')
    await dialog.waitFor()
    await check(page, 'Deploy', 'after a session ended')
    const password = dialog.byLabel(/^Password of/)
    await password.fill('wrong-horse-battery')
    await dialog.byRole('button', /^Sign in$/).click()
    await dialog.byText('The password is wrong').first().waitFor()
    await expect.poll(() => password.isFocused()).toBe(true)
    await password.fill(ADMIN.password)
    await dialog.byRole('button', /^Sign in$/).click()
    await deploy.steps().waitFor()
    expect((await toolyard.api.server(name)).name).toBe(name)
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a person signs out, and the pages are closed to them', { tag: '@main' }, async ({ open }) => {
  const page = await open({ person: ADMIN })
  const shell = new Shell(page)
  await page.goto('/servers')
  await shell.heading('Servers').waitFor()
  await shell.signOut()
  const signIn = new SignIn(page)
  await signIn.waitFor()
  await page.goto('/servers')
  await signIn.waitFor()
})

test('a page that waits at sign-in goes on when somebody signs in in another tab', {
  tag: '@main',
}, async ({ open, toolyard }) => {
  const name = 'made-while-signed-out'
  const page = await open({ person: ADMIN })
  await page.goto('/servers')
  await new Servers(page).row('everything').waitFor()
  await page.clearCookies()
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    await new SignIn(page).waitFor()
    // What another tab does: tabs share their cookies and the channel.
    await page.evaluate(async (body) => {
      await fetch('/api/v1/session', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      new BroadcastChannel('toolyard.signed-in').postMessage('signed in')
    }, ADMIN)
    await new Servers(page).row(name).waitFor()
    expect(await page.path()).toMatch(/^\/servers/)
  } finally {
    await toolyard.api.remove(name)
  }
})
