/**
 * The suite's `test`: a Toolyard for each worker, a browser for each worker, pages for each test. Specs ask for
 * `app` (signed in as the administrator), `visitor` (not signed in), `open` (more browsers) and `toolyard`.
 */
import { type Browser, test as base } from '@playwright/test'
import type { ConsolePage, Engine } from './page.ts'
import { PlaywrightPage } from './playwright-page.ts'
import { SeleniumPage } from './selenium-page.ts'
import { signIn, Toolyard } from './toolyard.ts'
import { startWebKit } from './webkit.ts'

export { expect } from '@playwright/test'

export interface OpenOptions {
  /** Whose session the page has; nobody's when `null`. The administrator's when absent. */
  person?: { email: string; password: string } | null
  toolyard?: Toolyard
  /** Whether the page may have its service worker. Without one, files come from the program under test. */
  serviceWorker?: boolean
  width?: number
  height?: number
}

interface Driver {
  engine: Engine
  version: string
  open(origin: string, options: OpenOptions): Promise<ConsolePage>
}

interface WorkerFixtures {
  engine: Engine
  toolyard: Toolyard
  driver: Driver
  adminCookie: { name: string; value: string }
}

interface TestFixtures {
  open: (options?: OpenOptions) => Promise<ConsolePage>
  app: ConsolePage
  visitor: ConsolePage
}

export const test = base.extend<TestFixtures, WorkerFixtures>({
  engine: ['chromium', { option: true, scope: 'worker' }],

  toolyard: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the fixtures wanted from the pattern.
    async ({}, use) => {
      const toolyard = await Toolyard.start(process.env.TOOLYARD_E2E_TEMPLATE)
      try {
        await toolyard.waitReady()
        await use(toolyard)
      } finally {
        await toolyard.dispose()
      }
    },
    { scope: 'worker', timeout: 120_000 },
  ],

  adminCookie: [async ({ toolyard }, use) => use(await signIn(toolyard.url)), { scope: 'worker' }],

  driver: [
    async ({ engine, playwright }, use) => {
      if (engine === 'webkit') {
        const webkit = await startWebKit()
        const page = (origin: string) => new SeleniumPage(webkit.driver, webkit.version, origin)
        await use({
          engine,
          version: webkit.version,
          open: async (origin, { width = 1440, height = 900 }) => {
            const opened = page(origin)
            await opened.goto('/healthz')
            await opened.setSize(width, height)
            return opened
          },
        })
        await webkit.close()
        return
      }
      const browser = await launch(playwright, engine)
      await use({
        engine,
        version: browser.version(),
        open: async (origin, { width = 1440, height = 900, serviceWorker = false }) => {
          const context = await browser.newContext({
            viewport: { width, height },
            serviceWorkers: serviceWorker ? 'allow' : 'block',
          })
          return PlaywrightPage.open(context, engine, browser.version(), origin)
        },
      })
      await browser.close()
    },
    { scope: 'worker', timeout: 90_000 },
  ],

  open: async ({ driver, toolyard, adminCookie }, use, testInfo) => {
    const pages: ConsolePage[] = []
    testInfo.annotations.push({ type: 'browser', description: `${driver.engine} ${driver.version}` })
    await use(async (options = {}) => {
      const on = options.toolyard ?? toolyard
      const page = await driver.open(on.url, options)
      pages.push(page)
      if (options.person === undefined && on === toolyard) await page.setCookie(adminCookie)
      else if (options.person !== null) await page.setCookie(await signIn(on.url, options.person))
      return page
    })
    const failed = testInfo.errors.length > 0
    const problems: string[] = []
    for (const [index, page] of pages.entries()) {
      problems.push(...(await page.problems()))
      if (failed) await page.screenshot(testInfo.outputPath(`page-${index + 1}.png`))
      await page.close()
    }
    // Looking at a failed page, Playwright itself breaks rules of the page's policy.
    if (problems.length > 0 && !failed) throw new Error(`the page had problems:\n${problems.join('\n')}`)
  },

  app: async ({ open }, use) => use(await open()),
  visitor: async ({ open }, use) => use(await open({ person: null })),
})

function launch(
  playwright: { chromium: Launcher; firefox: Launcher },
  engine: 'chromium' | 'firefox',
): Promise<Browser> {
  if (engine === 'firefox') {
    return playwright.firefox.launch({ channel: 'moz-firefox', executablePath: '/usr/bin/firefox-esr' })
  }
  return playwright.chromium.launch({
    executablePath: '/usr/bin/chromium',
    // Without a sandbox, because the suite may run as root; precise heap numbers for the heap check.
    args: ['--no-sandbox', '--enable-precise-memory-info', '--js-flags=--expose-gc'],
  })
}

interface Launcher {
  launch(options: { channel?: string; executablePath: string; args?: string[] }): Promise<Browser>
}
