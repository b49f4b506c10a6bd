import { Shell } from '../pages/shell.ts'
import { ROUTES } from '../routes.ts'
import { arrange } from '../support/arrange.ts'
import { check, expectSettled } from '../support/check.ts'
import type { ConsolePage } from '../support/page.ts'
import { expect, test } from '../support/test.ts'
import { TIME } from '../support/toolyard.ts'

const VIEWER = { email: 'viewer@example.test', password: 'correct-horse-battery', role: 'viewer' }

/** The administration code that a page has loaded. */
function administrationLoaded(): string[] {
  return performance
    .getEntriesByType('resource')
    .map((entry) => new URL(entry.name).pathname)
    .filter((path) => path.startsWith('/assets/admin/'))
}

async function statusOf(page: ConsolePage, path: string): Promise<number> {
  return page.evaluate(async (wanted) => (await fetch(wanted)).status, path)
}

test('a viewer sees no administration pages and is refused their code', async ({ open, toolyard }) => {
  await toolyard.api.send('POST', '/members', VIEWER).catch(() => undefined)
  const pages = ROUTES.filter((route) => route.administration)
  expect(pages.length).toBeGreaterThan(0)
  const admin = await open()
  const code = new Set<string>()
  for (const { path } of pages) {
    await admin.goto(path)
    await admin.byRole('main').byRole('heading', /./).first().waitFor()
    for (const file of await admin.evaluate(administrationLoaded)) code.add(file)
  }
  expect(code.size).toBeGreaterThan(0)

  const viewer = await open({ person: VIEWER })
  await viewer.goto('/')
  await new Shell(viewer).heading('Overview').waitFor()
  const links = pages.map(({ path }) => `header a[href="${path}"]`).join(',')
  expect(await admin.byCss(links).count()).toBeGreaterThan(0)
  expect(await viewer.byCss(links).count()).toBe(0)
  const stranger = await open({ person: null })
  await stranger.goto('/sign-in')
  for (const file of code) {
    expect(await statusOf(admin, file), file).toBe(200)
    expect(await statusOf(viewer, file), file).toBe(403)
    expect(await statusOf(stranger, file), file).toBe(401)
  }
  for (const { path } of pages) {
    await viewer.goto(path)
    await new Shell(viewer).heading('Not for your role').waitFor()
    await viewer.byText('Your role (viewer) may not see this page').first().waitFor()
    expect(await viewer.evaluate(administrationLoaded)).toEqual([])
  }
})

test('what a viewer looks at asks for nothing that is refused and noted', async ({ open, toolyard }) => {
  await arrange(toolyard)
  await toolyard.api.send('POST', '/members', VIEWER).catch(() => undefined)
  const refused = async () => {
    const actor = encodeURIComponent(VIEWER.email)
    const path = `/audit?actor=${actor}&outcome=refused&limit=500`
    return (await toolyard.api.send<{ items: unknown[] }>('GET', path)).items.length
  }
  const before = await refused()
  const viewer = await open({ person: VIEWER })
  for (const { name, path, open: isOpen } of ROUTES) {
    // The page of examples shows what loading looks like, for ever.
    if (isOpen || name === '/design') continue
    await viewer.goto(path)
    await expectSettled(viewer)
  }
  await viewer.goto('/toolsets/all')
  await new Shell(viewer).heading('all').waitFor()
  const main = viewer.byRole('main')
  await main.byText('You may not see its tools').first().waitFor()
  await check(viewer, 'Toolset', 'seen by a viewer')
  expect(await main.text()).not.toMatch(/\b0 tokens/)
  expect(await refused()).toBe(before)
})

test('forms that a viewer may not send say so at their top, and take nothing', async ({ open, toolyard }) => {
  await toolyard.api.send('POST', '/members', VIEWER).catch(() => undefined)
  const viewer = await open({ person: VIEWER })
  const main = viewer.byRole('main')
  for (const [name, path, button] of [
    ['Deploy', `/deploy/${TIME}`, /^Review$/],
    ['Register', '/deploy', /^Register$/],
    ['Publish', '/marketplace/publish', /^Submit for review$/],
  ] as const) {
    await viewer.goto(path)
    await main.byRole('button', button).waitFor()
    await main.byText('Your role (viewer) does not allow this').first().waitFor()
    const taken = () => document.querySelectorAll('main form :is(input, textarea, select):enabled').length
    expect(await viewer.evaluate(taken), path).toBe(0)
    await check(viewer, name, 'seen by a viewer')
  }
})

test('a page that is open gives way when the right to see it is taken away', async ({ open, toolyard }) => {
  const member = { email: 'less@example.test', password: 'correct-horse-battery', role: 'admin' }
  const { id } = await toolyard.api.send<{ id: string }>('POST', '/members', member)
  try {
    const page = await open({ person: member })
    await page.goto('/access/members')
    await page
      .byRole('main')
      .byRole('button', /^Add a member$/)
      .first()
      .click()
    await page.byRole('dialog', 'Add a member').waitFor()
    await toolyard.api.send('PATCH', `/members/${id}`, { role: 'viewer' })
    await new Shell(page).heading('Not for your role').waitFor()
    await page.byRole('dialog').waitFor('hidden')
  } finally {
    await toolyard.api.send('DELETE', `/members/${id}`)
  }
})

test('what is typed stays when the right to the page is taken away, and the page comes back with it', async ({
  open,
  toolyard,
}) => {
  const member = { email: 'changing@example.test', password: 'correct-horse-battery', role: 'developer' }
  const { id } = await toolyard.api.send<{ id: string }>('POST', '/members', member)
  try {
    const page = await open({ person: member })
    const shell = new Shell(page)
    await page.goto('/credentials')
    await page
      .byRole('main')
      .byRole('button', /^Create a credential$/)
      .first()
      .click()
    const dialog = page.byRole('dialog', 'Create a credential')
    await dialog.byLabel(/^Name/).fill('typed-as-developer')
    await toolyard.api.send('PATCH', `/members/${id}`, { role: 'viewer' })
    // The page has heard of it.
    const account = () => [...document.querySelectorAll('header')].map((one) => one.textContent).join(' ')
    await expect.poll(() => page.evaluate(account)).toContain('viewer')
    expect(await dialog.byLabel(/^Name/).value()).toBe('typed-as-developer')
    await page.press('Escape')
    await page
      .byRole('dialog', 'Leave without saving?')
      .byRole('button', /^Leave$/)
      .click()
    await shell.heading('Not for your role').waitFor()
    expect(await page.byCss('header a[href="/servers"]').count()).toBeGreaterThan(0)
    await check(page, 'Credentials', 'withheld from a role')
    await toolyard.api.send('PATCH', `/members/${id}`, { role: 'developer' })
    await shell.heading('Credentials').waitFor()
  } finally {
    await toolyard.api.send('DELETE', `/members/${id}`)
  }
})
