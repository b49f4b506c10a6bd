/** The suite's page on Playwright: Chromium and Firefox. */
import type { BrowserContext, Locator, Page } from '@playwright/test'
import {
  type ConsolePage,
  collectViolations,
  type Engine,
  type Handle,
  type Name,
  PATIENCE,
  readViolations,
} from './page.ts'

type Role = Parameters<Page['getByRole']>[0]

export class PlaywrightPage implements ConsolePage {
  #errors: string[] = []

  private constructor(
    readonly page: Page,
    readonly engine: Engine,
    readonly version: string,
    readonly origin: string,
  ) {
    page.on('pageerror', (error) => this.#errors.push(String(error)))
    page.setDefaultTimeout(PATIENCE * 1000)
  }

  static async open(
    context: BrowserContext,
    engine: Engine,
    version: string,
    origin: string,
  ): Promise<PlaywrightPage> {
    await context.addInitScript(collectViolations)
    return new PlaywrightPage(await context.newPage(), engine, version, origin)
  }

  get context(): BrowserContext {
    return this.page.context()
  }

  byRole(role: string, name?: Name): Handle {
    return new PlaywrightHandle(
      this.page.getByRole(asRole(role), name === undefined ? {} : { name }),
      this.engine,
    )
  }
  byLabel(label: Name): Handle {
    return new PlaywrightHandle(this.page.getByLabel(label), this.engine)
  }
  byText(text: Name): Handle {
    return new PlaywrightHandle(this.page.getByText(text), this.engine)
  }
  byCss(selector: string): Handle {
    return new PlaywrightHandle(this.page.locator(selector), this.engine)
  }
  async goto(path: string): Promise<void> {
    await this.#keepViolations()
    await this.page.goto(this.origin + path, { waitUntil: 'load', timeout: 30_000 })
  }
  async reload(): Promise<void> {
    await this.#keepViolations()
    await this.page.reload({ waitUntil: 'load', timeout: 30_000 })
  }
  async back(): Promise<void> {
    await this.page.goBack({ timeout: 30_000 })
  }
  async path(): Promise<string> {
    const url = new URL(this.page.url())
    return url.pathname + url.search
  }
  title(): Promise<string> {
    return this.page.title()
  }
  press(key: string): Promise<void> {
    return this.page.keyboard.press(key)
  }
  type(text: string): Promise<void> {
    return this.page.keyboard.type(text)
  }
  evaluate<R, A>(body: (argument: A) => R | Promise<R>, argument?: A): Promise<R> {
    // Playwright's own type for the argument describes handles, which the suite never passes.
    return this.page.evaluate(body as (argument: unknown) => R | Promise<R>, argument)
  }
  async inject(source: string): Promise<void> {
    await this.page.evaluate(source)
  }
  setSize(width: number, height: number): Promise<void> {
    return this.page.setViewportSize({ width, height })
  }
  async setCookie(cookie: { name: string; value: string }): Promise<void> {
    await this.context.addCookies([{ ...cookie, url: this.origin, httpOnly: true, sameSite: 'Strict' }])
  }
  async clearCookies(): Promise<void> {
    await this.context.clearCookies()
  }
  async setOffline(offline: boolean): Promise<void> {
    await this.context.setOffline(offline)
  }
  screenshot(file?: string): Promise<Buffer> {
    // Hiding the caret would add a style, which the Content Security Policy refuses.
    return this.page.screenshot({ caret: 'initial', ...(file === undefined ? {} : { path: file }) })
  }
  async problems(): Promise<string[]> {
    await this.#keepViolations()
    return this.#errors
  }
  async close(): Promise<void> {
    await this.context.close()
  }

  async #keepViolations(): Promise<void> {
    if (this.page.url() === 'about:blank') return
    const seen = await this.page.evaluate(readViolations)
    this.#errors.push(...seen.filter((violation) => !this.#errors.includes(violation)))
  }
}

class PlaywrightHandle implements Handle {
  constructor(
    private readonly locator: Locator,
    private readonly engine: Engine,
  ) {}

  byRole(role: string, name?: Name): Handle {
    return new PlaywrightHandle(
      this.locator.getByRole(asRole(role), name === undefined ? {} : { name }),
      this.engine,
    )
  }
  byLabel(label: Name): Handle {
    return new PlaywrightHandle(this.locator.getByLabel(label), this.engine)
  }
  byText(text: Name): Handle {
    return new PlaywrightHandle(this.locator.getByText(text), this.engine)
  }
  byCss(selector: string): Handle {
    return new PlaywrightHandle(this.locator.locator(selector), this.engine)
  }
  containing(text: Name): Handle {
    return new PlaywrightHandle(this.locator.filter({ hasText: text }), this.engine)
  }
  nth(index: number): Handle {
    return new PlaywrightHandle(this.locator.nth(index), this.engine)
  }
  first(): Handle {
    return this.nth(0)
  }
  click(): Promise<void> {
    return this.locator.click()
  }
  async fill(text: string): Promise<void> {
    if (this.engine !== 'firefox') return this.locator.fill(text)
    // By WebDriver BiDi, `fill` changes the value but React never hears of it; keys it hears.
    await this.locator.selectText()
    await this.locator.press('Delete')
    await this.locator.pressSequentially(text)
  }
  press(key: string): Promise<void> {
    return this.locator.press(key)
  }
  focus(): Promise<void> {
    return this.locator.focus()
  }
  text(): Promise<string> {
    return this.locator.innerText()
  }
  texts(): Promise<string[]> {
    return this.locator.allInnerTexts()
  }
  value(): Promise<string> {
    return this.locator.inputValue()
  }
  attribute(name: string): Promise<string | null> {
    return this.locator.getAttribute(name)
  }
  count(): Promise<number> {
    return this.locator.count()
  }
  isVisible(): Promise<boolean> {
    return this.locator.first().isVisible()
  }
  isEnabled(): Promise<boolean> {
    return this.locator.isEnabled()
  }
  isFocused(): Promise<boolean> {
    return this.locator.evaluate((element) => element === document.activeElement)
  }
  waitFor(state: 'visible' | 'hidden' = 'visible', seconds = PATIENCE): Promise<void> {
    return this.locator.first().waitFor({ state, timeout: seconds * 1000 })
  }
}

/** Playwright names the roles in a union; the suite's roles are words of the same list. */
function asRole(role: string): Role {
  return role as Role
}
