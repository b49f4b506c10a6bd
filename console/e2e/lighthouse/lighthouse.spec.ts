/**
 * Lighthouse on every page, in both themes, as the production build in the real program serves it. Desktop: median
 * of three, which must reach the bar; mobile: one run, reported.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import lighthouse, { desktopConfig, type Flags } from 'lighthouse'
import puppeteer, { type Browser, type Page } from 'puppeteer-core'
import { ROUTES, type Route } from '../routes.ts'
import { arrange } from '../support/arrange.ts'
import { THEMES, type Theme } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { signIn, type Toolyard } from '../support/toolyard.ts'

const CATEGORIES = ['performance', 'accessibility', 'best-practices'] as const
type Category = (typeof CATEGORIES)[number]
type Scores = Record<Category, number>
const BAR = 0.95
const RUNS = Number(process.env.TOOLYARD_LIGHTHOUSE_RUNS ?? 3)
const LONGEST_LOAD_MS = 20_000
const RESULTS = resolve(import.meta.dirname, 'results/pages')

interface Row {
  route: Route
  theme: Theme
  desktop: Scores
  mobile: Scores
  wrong: string[]
}

let version = ''

test.describe.configure({ mode: 'default' })

for (const route of ROUTES) {
  for (const theme of THEMES) {
    test(`${route.name}, ${theme}`, async ({ toolyard }) => {
      await arrange(toolyard)
      const browser = await puppeteer.launch({
        executablePath: '/usr/bin/chromium',
        args: ['--no-sandbox', '--headless=new'],
      })
      try {
        version = await browser.version()
        const page = await open(browser, toolyard, route, theme)
        const desktop: Measured[] = []
        for (let run = 0; run < RUNS; run += 1) desktop.push(await measure(page, toolyard, route, 'desktop'))
        const mobile = await measure(page, toolyard, route, 'mobile')
        const row = {
          route,
          theme,
          desktop: median(desktop.map((it) => it.scores)),
          mobile: mobile.scores,
          wrong: [...new Set(desktop.flatMap((it) => it.wrong))],
        }
        keep(row)
        for (const category of CATEGORIES) {
          expect
            .soft(row.desktop[category], `${category}: ${row.wrong.join('; ')}`)
            .toBeGreaterThanOrEqual(BAR)
        }
      } finally {
        await browser.close()
      }
    })
  }
}

// A failed page gets a new worker, so rows are kept in files.
test.afterAll(() => {
  const text = report()
  process.stdout.write(`\n${text}`)
  const reports = process.env.TOOLYARD_E2E_REPORTS
  if (reports !== undefined) writeFileSync(join(reports, 'lighthouse.md'), text)
})

async function open(browser: Browser, toolyard: Toolyard, route: Route, theme: Theme): Promise<Page> {
  const page = await browser.newPage()
  await page.goto(`${toolyard.url}/healthz`)
  // What the in-app switch stores.
  await page.evaluate((wanted) => localStorage.setItem('toolyard.theme', wanted), theme)
  if (!route.open)
    await browser.setCookie({
      ...(await signIn(toolyard.url)),
      domain: '127.0.0.1',
      path: '/',
      httpOnly: true,
    })
  return page
}

interface Measured {
  scores: Scores
  wrong: string[]
}

async function measure(
  page: Page,
  toolyard: Toolyard,
  route: Route,
  form: 'desktop' | 'mobile',
): Promise<Measured> {
  const flags: Flags = {
    onlyCategories: [...CATEGORIES],
    output: 'json',
    logLevel: 'error',
    maxWaitForLoad: LONGEST_LOAD_MS,
  }
  const result = await lighthouse(
    toolyard.url + route.path,
    flags,
    form === 'desktop' ? desktopConfig : undefined,
    page,
  )
  if (result === undefined) throw new Error('Lighthouse gave no result')
  const { lhr } = result
  expect(lhr.runtimeError, 'Lighthouse ran').toBeUndefined()
  // A page that sent us elsewhere was not measured.
  expect(new URL(lhr.finalDisplayedUrl).pathname).toBe(new URL(toolyard.url + route.landsOn).pathname)
  const score = (category: Category) => lhr.categories[category]?.score ?? 0
  const wrong = CATEGORIES.flatMap((category) => lhr.categories[category]?.auditRefs ?? [])
    .filter((ref) => ref.weight > 0 && (lhr.audits[ref.id]?.score ?? 1) < 0.9)
    .map((ref) => `${ref.id} ${lhr.audits[ref.id]?.displayValue ?? ''}`.trim())
  return {
    scores: {
      performance: score('performance'),
      accessibility: score('accessibility'),
      'best-practices': score('best-practices'),
    },
    wrong,
  }
}

function median(runs: Scores[]): Scores {
  const middle = (category: Category) =>
    runs.map((scores) => scores[category]).sort((a, b) => a - b)[Math.floor(runs.length / 2)] ?? 0
  return {
    performance: middle('performance'),
    accessibility: middle('accessibility'),
    'best-practices': middle('best-practices'),
  }
}

function keep(row: Row): void {
  mkdirSync(RESULTS, { recursive: true })
  const file = `${row.route.name}-${row.theme}`.toLowerCase().replace(/[^a-z]+/g, '-')
  writeFileSync(join(RESULTS, `${file}.json`), JSON.stringify({ ...row, version }))
}

function report(): string {
  const kept = readdirSync(RESULTS)
    .map((file): Row & { version: string } => JSON.parse(readFileSync(join(RESULTS, file), 'utf8')))
    .sort((a, b) => order(a) - order(b) || b.theme.localeCompare(a.theme, 'en'))
  const cells = (scores: Scores) => CATEGORIES.map((category) => scores[category].toFixed(2)).join(' | ')
  return [
    '# Lighthouse',
    '',
    `Generated by \`make lighthouse\` on ${new Date().toISOString().slice(0, 10)} with ${kept[0]?.version ?? version}: the production build in`,
    `the real program, headless. Desktop preset: median of ${RUNS}; each must reach ${BAR}. Mobile: one run, slow network and`,
    'processor simulated, reported.',
    '',
    '| page | theme | performance | accessibility | best practices | mobile performance | mobile accessibility | mobile best practices |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...kept.map(
      (row) => `| ${row.route.name} | ${row.theme} | ${cells(row.desktop)} | ${cells(row.mobile)} |`,
    ),
    '',
  ].join('\n')
}

function order(row: Row): number {
  return ROUTES.findIndex((route) => route.name === row.route.name)
}
