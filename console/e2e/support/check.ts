/**
 * Looks at a page as it stands: axe finds nothing, there is one `main` with one `h1`, the document has a title, and
 * nothing is wider than the window. Each look is told to the report. axe reads the document, which is the same on
 * every engine; so it runs on Chromium only.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { expect, test } from '@playwright/test'
import type { AxeResults } from 'axe-core'
import type { Route } from '../routes.ts'
import type { ConsolePage } from './page.ts'
import { waitFor } from './wait.ts'

export const WIDTHS = [320, 360, 390, 768, 1440, 2560]
export const THEMES = ['light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

/** One look, as the report reads it from a test's annotations. */
export interface Look {
  page: string
  state: string
  theme: Theme
  engine: string
  rules: number
  violations: string[]
}
export const LOOK = 'look'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** Looks in both themes at the state the page is in now. */
export async function check(page: ConsolePage, name: string, state: string): Promise<void> {
  await expectShape(page)
  if (page.engine !== 'chromium') return
  for (const theme of THEMES) {
    await showTheme(page, theme)
    const look = await lookByAxe(page, name, state, theme)
    test.info().annotations.push({ type: LOOK, description: JSON.stringify(look) })
    expect.soft(look.violations, `axe on ${name}, ${state}, ${theme}`).toEqual([])
  }
  await showTheme(page, undefined)
}

/** Waits until the page has its title. */
export async function expectTitled(page: ConsolePage): Promise<void> {
  await page.byRole('main').byRole('heading', /./).first().waitFor('visible', 20)
}

/** Waits until the page has its title and nothing in it is loading any more. */
export async function expectSettled(page: ConsolePage): Promise<void> {
  await expectTitled(page)
  const loading = () =>
    page.evaluate(() => document.querySelectorAll('main [aria-busy=true], main .skeleton').length)
  await expect.poll(loading, { message: 'still loading' }).toBe(0)
}

/** Loads a page of the console and waits until all of it is there. */
export async function expectOpened(page: ConsolePage, route: Route): Promise<void> {
  await page.goto(route.path)
  // The page of examples shows what loading looks like, too.
  await (route.name === '/design' ? expectTitled(page) : expectSettled(page))
  expect(await page.path()).toBe(route.landsOn)
}

/** Looks at every width; leaves the page at the last one asked for. */
export async function checkWidths(page: ConsolePage, name: string, widths = WIDTHS): Promise<void> {
  for (const width of widths) {
    await page.setSize(width, 900)
    const wide = async () =>
      page.evaluate(() => {
        const room = document.documentElement.clientWidth
        if (document.documentElement.scrollWidth <= innerWidth) return []
        return [...document.querySelectorAll('body *')]
          .filter((element) => element.getBoundingClientRect().right > room + 0.5)
          .map((element) => `${element.tagName.toLowerCase()}.${element.getAttribute('class') ?? ''}`)
          .slice(0, 5)
      })
    await expect.poll(wide, { message: `${name} at ${width} px is wider than the window by` }).toEqual([])
  }
}

async function expectShape(page: ConsolePage): Promise<void> {
  const shape = () =>
    page.evaluate(() => ({
      mains: document.querySelectorAll('main').length,
      headings: document.querySelectorAll('main h1').length,
      titled: document.title.trim() !== '',
    }))
  await expect.poll(shape).toEqual({ mains: 1, headings: 1, titled: true })
}

/** Sets what the in-app switch sets, and waits until nothing moves any more. */
async function showTheme(page: ConsolePage, theme: Theme | undefined): Promise<void> {
  await page.evaluate(async (wanted) => {
    if (wanted === undefined) delete document.documentElement.dataset['theme']
    else document.documentElement.dataset['theme'] = wanted
    // Transitions of colours begin with the next frame.
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
  }, theme)
  const moving = () =>
    page.evaluate(
      () =>
        document
          .getAnimations()
          .filter(
            (it) => it.playState === 'running' && it.effect?.getComputedTiming().iterations !== Infinity,
          ).length,
    )
  await waitFor('nothing moves', async () => (await moving()) === 0, { seconds: 15 })
}

async function lookByAxe(page: ConsolePage, name: string, state: string, theme: Theme): Promise<Look> {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.inject(AXE)
  const found = await page.evaluate(async () => {
    const axe: { run(): Promise<AxeResults> } = Reflect.get(globalThis, 'axe')
    const results = await axe.run()
    return {
      rules: results.passes.length + results.violations.length,
      violations: results.violations.flatMap((violation) =>
        violation.nodes.map(
          (node) => `${violation.id}: ${node.html.slice(0, 200)} ${node.failureSummary ?? ''}`,
        ),
      ),
    }
  })
  return { page: name, state, theme, engine: page.engine, ...found }
}
