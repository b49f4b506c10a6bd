/** The suite's page on WebDriver: WebKitGTK's MiniBrowser. */
import { writeFileSync } from 'node:fs'
import { Key, type WebDriver, type WebElement } from 'selenium-webdriver'
import { findInPage, type Step, type Wanted } from './find.ts'
import {
  type ConsolePage,
  collectViolations,
  type Engine,
  type Handle,
  type Name,
  PATIENCE,
  readViolations,
} from './page.ts'
import { waitFor } from './wait.ts'

const KEYS: Record<string, string> = {
  Enter: Key.ENTER,
  Escape: Key.ESCAPE,
  Tab: Key.TAB,
  Space: Key.SPACE,
  Backspace: Key.BACK_SPACE,
  Delete: Key.DELETE,
  ArrowDown: Key.ARROW_DOWN,
  ArrowUp: Key.ARROW_UP,
  ArrowLeft: Key.ARROW_LEFT,
  ArrowRight: Key.ARROW_RIGHT,
  Home: Key.HOME,
  End: Key.END,
}
const MODIFIERS: Record<string, string> = {
  Control: Key.CONTROL,
  Shift: Key.SHIFT,
  Alt: Key.ALT,
  Meta: Key.META,
}

const LEAST_WIDTH = 450

export class SeleniumPage implements ConsolePage {
  readonly engine: Engine = 'webkit'
  #problems: string[] = []
  #frame = { width: 0, height: 0 }

  constructor(
    readonly driver: WebDriver,
    readonly version: string,
    readonly origin: string,
  ) {}

  byRole(role: string, name?: Name): Handle {
    return new SeleniumHandle(this, []).byRole(role, name)
  }
  byLabel(label: Name): Handle {
    return new SeleniumHandle(this, []).byLabel(label)
  }
  byText(text: Name): Handle {
    return new SeleniumHandle(this, []).byText(text)
  }
  byCss(selector: string): Handle {
    return new SeleniumHandle(this, []).byCss(selector)
  }
  async goto(path: string): Promise<void> {
    await this.#keepViolations()
    await this.driver.get(this.origin + path)
    await this.#watch()
  }
  async reload(): Promise<void> {
    await this.#keepViolations()
    await this.driver.navigate().refresh()
    await this.#watch()
  }
  async back(): Promise<void> {
    await this.driver.navigate().back()
  }
  async path(): Promise<string> {
    const url = new URL(await this.driver.getCurrentUrl())
    return url.pathname + url.search
  }
  title(): Promise<string> {
    return this.driver.getTitle()
  }
  async press(key: string): Promise<void> {
    await (await this.driver.switchTo().activeElement()).sendKeys(chord(key))
  }
  async type(text: string): Promise<void> {
    await (await this.driver.switchTo().activeElement()).sendKeys(text)
  }
  async evaluate<R, A>(body: (argument: A) => R | Promise<R>, argument?: A): Promise<R> {
    const answer = await this.driver.executeAsyncScript<{ value?: R; error?: string }>(
      `const done = arguments[1];
       Promise.resolve().then(() => (${body})(arguments[0])).then((value) => done({ value }), (error) => done({ error: String(error) }));`,
      argument,
    )
    if (answer.error !== undefined) throw new Error(answer.error)
    // The answer is what `body` returned, by way of JSON.
    return answer.value as R
  }
  async inject(source: string): Promise<void> {
    await this.driver.executeScript(source)
  }
  async setSize(width: number, height: number): Promise<void> {
    // MiniBrowser gets no narrower than its tool bar: `LEAST_WIDTH`.
    const wanted = { width: Math.max(width, LEAST_WIDTH), height }
    let inner = await this.#size()
    const fits = () =>
      Math.abs(inner.width - wanted.width) <= 1 && Math.abs(inner.height - wanted.height) <= 1
    const window = this.driver.manage().window()
    await waitFor(
      `a page of ${wanted.width} by ${wanted.height}`,
      async () => {
        if (fits()) return true
        await window.setRect({
          x: 0,
          y: 0,
          width: wanted.width + this.#frame.width,
          height: wanted.height + this.#frame.height,
        })
        // The page hears of it later than the driver.
        const until = performance.now() + 500
        while (!fits() && performance.now() < until) inner = await this.#size()
        if (fits()) return true
        // The window is larger than the page by its tool bar and frame.
        const outer = await window.getRect()
        this.#frame = { width: outer.width - inner.width, height: outer.height - inner.height }
        return false
      },
      { seconds: 10, detail: () => `${inner.width} by ${inner.height}` },
    )
  }
  async setCookie(cookie: { name: string; value: string }): Promise<void> {
    // A cookie can be set only while a page of its origin is shown.
    await this.driver.get(`${this.origin}/healthz`)
    await this.driver.manage().addCookie({ ...cookie, path: '/', httpOnly: true })
  }
  async clearCookies(): Promise<void> {
    await this.driver.manage().deleteAllCookies()
  }
  async setOffline(): Promise<void> {
    throw new Error('WebKitGTK cannot be taken offline by its driver')
  }
  async screenshot(file?: string): Promise<Buffer> {
    const image = Buffer.from(await this.driver.takeScreenshot(), 'base64')
    if (file !== undefined) writeFileSync(file, image)
    return image
  }
  async problems(): Promise<string[]> {
    await this.#keepViolations()
    return this.#problems
  }
  async close(): Promise<void> {
    await this.driver.manage().deleteAllCookies()
    await this.evaluate(() => localStorage.clear())
    await this.driver.get('about:blank')
  }

  #size(): Promise<{ width: number; height: number }> {
    return this.evaluate(() => ({ width: innerWidth, height: innerHeight }))
  }
  async #watch(): Promise<void> {
    await this.evaluate(collectViolations)
  }
  async #keepViolations(): Promise<void> {
    const seen = await this.evaluate(readViolations)
    this.#problems.push(...seen.filter((violation) => !this.#problems.includes(violation)))
  }
}

class SeleniumHandle implements Handle {
  constructor(
    private readonly page: SeleniumPage,
    private readonly steps: Step[],
  ) {}

  #and(step: Step): Handle {
    return new SeleniumHandle(this.page, [...this.steps, step])
  }
  byRole(role: string, name?: Name): Handle {
    return this.#and(name === undefined ? { by: 'role', role } : { by: 'role', role, name: wanted(name) })
  }
  byLabel(label: Name): Handle {
    return this.#and({ by: 'label', text: wanted(label) })
  }
  byText(text: Name): Handle {
    return this.#and({ by: 'text', text: wanted(text) })
  }
  byCss(selector: string): Handle {
    return this.#and({ by: 'css', selector })
  }
  containing(text: Name): Handle {
    return this.#and({ by: 'containing', text: wanted(text) })
  }
  nth(index: number): Handle {
    return this.#and({ by: 'nth', index })
  }
  first(): Handle {
    return this.nth(0)
  }
  click(): Promise<void> {
    return this.#act(async (element) => {
      await this.#rest(element)
      await element.click()
    })
  }
  fill(text: string): Promise<void> {
    return this.#act(async (element) => {
      // WebKitGTK loses what follows a chord, so the old text is selected by script.
      await this.page.driver.executeScript('arguments[0].focus(); arguments[0].select?.()', element)
      await element.sendKeys(text === '' ? Key.BACK_SPACE : text)
    })
  }
  press(key: string): Promise<void> {
    return this.#act((element) => element.sendKeys(chord(key)))
  }
  focus(): Promise<void> {
    return this.#act((element) => this.page.driver.executeScript('arguments[0].focus()', element))
  }
  text(): Promise<string> {
    return this.#act((element) =>
      this.page.driver.executeScript<string>('return arguments[0].innerText', element),
    )
  }
  async texts(): Promise<string[]> {
    return this.page.driver.executeScript<string[]>(
      `return (${findInPage})(arguments[0]).map((element) => element.innerText)`,
      this.steps,
    )
  }
  value(): Promise<string> {
    return this.#act((element) =>
      this.page.driver.executeScript<string>('return arguments[0].value', element),
    )
  }
  attribute(name: string): Promise<string | null> {
    return this.#act((element) =>
      this.page.driver.executeScript<string | null>(
        'return arguments[0].getAttribute(arguments[1])',
        element,
        name,
      ),
    )
  }
  async count(): Promise<number> {
    return (await this.#all()).length
  }
  async isVisible(): Promise<boolean> {
    const [first] = await this.#all()
    return first !== undefined && this.#shown(first)
  }
  isEnabled(): Promise<boolean> {
    return this.#act((element) => element.isEnabled())
  }
  isFocused(): Promise<boolean> {
    return this.#act((element) =>
      this.page.driver.executeScript<boolean>('return arguments[0] === document.activeElement', element),
    )
  }
  async waitFor(state: 'visible' | 'hidden' = 'visible', seconds = PATIENCE): Promise<void> {
    await waitFor(`${this} is ${state}`, async () => (await this.isVisible()) === (state === 'visible'), {
      seconds,
    })
  }
  toString(): string {
    return JSON.stringify(this.steps)
  }

  /** Waits until the element stays where it is: the driver presses where it was found. */
  async #rest(element: WebElement): Promise<void> {
    const rests = await this.page.driver.executeAsyncScript<boolean>(
      `const [element, done] = arguments
       element.scrollIntoView({ block: 'nearest', inline: 'nearest' })
       let last = '', left = 120
       const look = () => {
         const { x, y, width, height } = element.getBoundingClientRect()
         const now = [x, y, width, height].join()
         if (now === last || left === 0) return done(now === last)
         last = now
         left -= 1
         requestAnimationFrame(() => requestAnimationFrame(look))
       }
       look()`,
      element,
    )
    if (!rests) throw new Error(`${this} does not come to rest`)
  }
  #all(): Promise<WebElement[]> {
    return this.page.driver.executeScript<WebElement[]>(`return (${findInPage})(arguments[0])`, this.steps)
  }
  #shown(element: WebElement): Promise<boolean> {
    return this.page.driver.executeScript<boolean>(
      'return arguments[0].checkVisibility({ visibilityProperty: true })',
      element,
    )
  }
  /** Does something with the one element, and again when it was replaced or covered meanwhile. */
  async #act<T>(action: (element: WebElement) => Promise<T>): Promise<T> {
    let done: { value: T } | undefined
    await waitFor(
      `acting on ${this}`,
      async () => {
        const elements = await this.#all()
        const [element] = elements
        if (element === undefined) return false
        if (elements.length > 1) throw new Error(`${elements.length} elements are ${this}`)
        done = { value: await action(element) }
        return true
      },
      { seconds: PATIENCE },
    )
    if (done === undefined) throw new Error(`nothing was done with ${this}`)
    return done.value
  }
}

function wanted(name: Name): Wanted {
  return typeof name === 'string' ? name : { source: name.source, flags: name.flags }
}

function chord(key: string): string {
  const keys = key.split('+').map((part) => MODIFIERS[part] ?? KEYS[part] ?? part)
  return keys.length === 1 ? (keys[0] ?? '') : Key.chord(...keys)
}
