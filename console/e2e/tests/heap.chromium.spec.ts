/** Chromium tells, by its own protocol, what a page holds on to. */
import { Shell } from '../pages/shell.ts'
import { PlaywrightPage } from '../support/playwright-page.ts'
import { expect, test } from '../support/test.ts'

const MIB = 1024 * 1024

test('over 100 navigations neither the heap nor the listeners grow', async ({ app }) => {
  test.setTimeout(180_000)
  if (!(app instanceof PlaywrightPage)) throw new Error('this test is for Chromium')
  const protocol = await app.context.newCDPSession(app.page)
  await protocol.send('Performance.enable')
  const held = async () => {
    await protocol.send('HeapProfiler.collectGarbage')
    const { metrics } = await protocol.send('Performance.getMetrics')
    const metric = (name: string) => metrics.find((it) => it.name === name)?.value ?? Number.NaN
    return { heap: metric('JSHeapUsedSize'), listeners: metric('JSEventListeners'), nodes: metric('Nodes') }
  }
  const shell = new Shell(app)
  const tour = ['Servers', 'Marketplace', 'Toolsets', 'Toolboxes', 'Overview']
  const walk = async (navigations: number) => {
    for (let step = 0; step < navigations; step += 1) {
      const name = tour[step % tour.length] ?? 'Overview'
      await shell.navigate(name)
      await shell.heading(name).waitFor()
    }
  }
  await app.goto('/')
  await walk(4 * tour.length)
  const before = await held()
  await walk(100)
  const after = await held()
  expect(after.heap).toBeLessThan(before.heap * 1.2 + 2 * MIB)
  expect(after.listeners).toBeLessThanOrEqual(before.listeners * 1.1 + 20)
  expect(after.nodes).toBeLessThanOrEqual(before.nodes * 1.2 + 200)
})
