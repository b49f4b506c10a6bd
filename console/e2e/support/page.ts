/**
 * What the suite needs of a browser, in words that Playwright and WebDriver can both keep. Page objects and
 * journeys know only this, so the same ones run on Chromium, Firefox and WebKit.
 *
 * A string names by containing it in any case, a regular expression by matching; white space counts as one space.
 * Actions wait until their element is there; questions (`count`, `isVisible`) answer for now.
 */
export type Engine = 'chromium' | 'firefox' | 'webkit'
export type Name = string | RegExp

export interface Finder {
  byRole(role: string, name?: Name): Handle
  byLabel(label: Name): Handle
  byText(text: Name): Handle
  byCss(selector: string): Handle
}

export interface Handle extends Finder {
  click(): Promise<void>
  fill(text: string): Promise<void>
  /** Focuses the element and presses a key, such as `Enter` or `Control+a`. */
  press(key: string): Promise<void>
  focus(): Promise<void>
  text(): Promise<string>
  /** What each of the elements says. */
  texts(): Promise<string[]>
  value(): Promise<string>
  attribute(name: string): Promise<string | null>
  count(): Promise<number>
  isVisible(): Promise<boolean>
  isEnabled(): Promise<boolean>
  isFocused(): Promise<boolean>
  waitFor(state?: 'visible' | 'hidden', seconds?: number): Promise<void>
  /** Those that contain the text. */
  containing(text: Name): Handle
  nth(index: number): Handle
  first(): Handle
}

export interface ConsolePage extends Finder {
  readonly engine: Engine
  readonly version: string
  readonly origin: string
  /** Loads a path of the console. */
  goto(path: string): Promise<void>
  reload(): Promise<void>
  back(): Promise<void>
  /** The path with its query. */
  path(): Promise<string>
  title(): Promise<string>
  /** Presses a key where the focus is. */
  press(key: string): Promise<void>
  /** Types where the focus is. */
  type(text: string): Promise<void>
  evaluate<R, A = undefined>(body: (argument: A) => R | Promise<R>, argument?: A): Promise<R>
  /** Runs a library's source in the page. */
  inject(source: string): Promise<void>
  setSize(width: number, height: number): Promise<void>
  setCookie(cookie: { name: string; value: string }): Promise<void>
  clearCookies(): Promise<void>
  /** Cuts the network, or gives it back; not on WebKit, whose driver cannot. */
  setOffline(offline: boolean): Promise<void>
  screenshot(file?: string): Promise<Buffer>
  /** Errors of the page's scripts and violations of its policies, so far. */
  problems(): Promise<string[]>
  close(): Promise<void>
}

/** Seconds an action waits for its element. */
export const PATIENCE = 10

/** Collects what the Content Security Policy refuses; runs in the page before its own scripts where the driver can. */
export function collectViolations(): void {
  const seen: string[] = []
  Object.assign(globalThis, { __violations: seen })
  document.addEventListener('securitypolicyviolation', (event) => {
    seen.push(
      `${event.effectiveDirective} refused ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber} ${event.sample}`,
    )
  })
}

/** Reads what `collectViolations` saw. */
export function readViolations(): string[] {
  const seen: unknown = Reflect.get(globalThis, '__violations')
  return Array.isArray(seen) ? seen.map(String) : []
}
