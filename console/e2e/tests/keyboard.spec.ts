/** Nothing here touches a pointer. */
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import type { ConsolePage } from '../support/page.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN } from '../support/toolyard.ts'

/** Presses Tab until the element with this name has the focus. */
async function tabTo(page: ConsolePage, role: string, name: string | RegExp, most = 60): Promise<void> {
  for (let press = 0; press < most; press += 1) {
    await page.press('Tab')
    const wanted = page.byRole(role, name).first()
    if ((await wanted.count()) > 0 && (await wanted.isFocused())) {
      expect(await page.evaluate(focusIsSeen), `the focus on ${role} ${name} can be seen`).toBe(true)
      return
    }
  }
  throw new Error(`Tab does not lead to ${role} ${name}`)
}

/** Whether the element that has the focus is in the window and drawn in some special way. */
function focusIsSeen(): boolean {
  const element = document.activeElement
  if (element === null) return false
  const box = element.getBoundingClientRect()
  const inWindow = box.bottom > 0 && box.top < innerHeight && box.width > 0
  const ring = (style: CSSStyleDeclaration) => style.outlineStyle !== 'none' || style.boxShadow !== 'none'
  return inWindow && (ring(getComputedStyle(element)) || ring(getComputedStyle(element, '::after')))
}

test('a person signs in, finds a server and reads its log with the keyboard alone', async ({
  visitor: page,
}) => {
  const shell = new Shell(page)
  await page.goto('/sign-in')
  await expect.poll(() => page.byLabel(/^Email/).isFocused()).toBe(true)
  await page.type(ADMIN.email)
  await tabTo(page, 'textbox', 'Password', 3)
  await page.type(ADMIN.password)
  await page.press('Enter')
  await shell.heading('Overview').waitFor()

  // On a page that was just loaded, the first stop leads past the navigation.
  await page.reload()
  await shell.heading('Overview').waitFor()
  await page.press('Tab')
  expect(await page.byRole('link', 'Skip to the page').isFocused()).toBe(true)
  await page.press('Enter')
  await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe('main')

  await tabTo(page, 'link', /^Servers$/)
  await page.press('Enter')
  await shell.heading('Servers').waitFor()
  // The title takes the focus, so that a screen reader begins there.
  await expect.poll(() => page.evaluate(() => document.activeElement?.tagName)).toBe('H1')

  await page.press('/')
  await expect.poll(() => page.byRole('searchbox').first().isFocused()).toBe(true)
  await page.type('everyth')
  await tabTo(page, 'link', /^everything$/)
  await page.press('Enter')
  await shell.heading('everything').waitFor()
  await tabTo(page, 'link', /^Logs$/)
  await page.press('Enter')
  await expect.poll(() => page.path()).toMatch(/\/servers\/everything\/logs/)
})

test('the command palette and the shortcuts lead anywhere', async ({ app: page }) => {
  const shell = new Shell(page)
  await page.goto('/')
  await shell.heading('Overview').waitFor()
  await page.press('Control+k')
  await page.byRole('combobox', 'Search and commands').waitFor()
  await check(page, 'Command palette', 'open')
  await page.type('no such thing')
  await page.byText('Nothing found').first().waitFor()
  await check(page, 'Command palette', 'nothing found')
  await page.byRole('combobox', 'Search and commands').fill('')
  await page.type('servers')
  await page.byRole('option', /^Servers$/).waitFor()
  await page.press('Enter')
  await shell.heading('Servers').waitFor()
  await page.press('g')
  await page.press('o')
  await shell.heading('Overview').waitFor()
  await page.press('Control+k')
  await page.byRole('combobox', 'Search and commands').waitFor()
  await page.type('settings: app')
  await page.byRole('option', 'Settings: appearance').waitFor()
  await page.byRole('combobox', 'Search and commands').fill('everything')
  await page.byRole('option', /^everything$/).waitFor()
  await check(page, 'Command palette', 'a server found')
  await page.press('Enter')
  await shell.heading('everything').waitFor()
  await page.goto('/')
  await shell.heading('Overview').waitFor()
  await page.press('Shift+?')
  await page.byRole('dialog', 'Keyboard shortcuts').waitFor()
  await check(page, 'Keyboard shortcuts', 'open')
  await page.press('Escape')
  await page.byRole('dialog').waitFor('hidden')
})

test('the theme that a person chooses stays', { tag: '@main' }, async ({ app: page }) => {
  const shell = new Shell(page)
  await page.goto('/')
  await shell.heading('Overview').waitFor()
  for (const theme of ['Dark', 'Light'] as const) {
    await shell.chooseTheme(theme)
    const shown = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme)
    await expect.poll(shown).toBe(theme.toLowerCase())
    await page.reload()
    await shell.heading('Overview').waitFor()
    expect(await shown()).toBe(theme.toLowerCase())
  }
})
