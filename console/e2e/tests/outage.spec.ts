import { ServerPage } from '../pages/server.ts'
import { Servers } from '../pages/servers.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import type { ConsolePage } from '../support/page.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, TIME, Toolyard } from '../support/toolyard.ts'

/** Waits until the page's service worker has the page, so that a later start needs no server. */
async function waitForServiceWorker(page: ConsolePage): Promise<void> {
  await page.evaluate(async () => {
    await navigator.serviceWorker.ready
  })
  await expect.poll(() => page.evaluate(() => navigator.serviceWorker.controller !== null)).toBe(true)
}

/** Does what a browser does when the tab goes to the background, and waits until the page has kept what it knows. */
async function sendToBackground(page: ConsolePage): Promise<void> {
  await page.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
  })
  const kept = () =>
    page.evaluate(
      () =>
        new Promise<number>((done, failed) => {
          const opening = indexedDB.open('keyval-store')
          opening.onerror = () => failed(opening.error)
          opening.onsuccess = () => {
            const database = opening.result
            const reading = database.transaction('keyval').objectStore('keyval').count()
            reading.onerror = () => failed(reading.error)
            reading.onsuccess = () => {
              done(reading.result)
              database.close()
            }
          }
        }),
    )
  await expect.poll(kept, { timeout: 20_000 }).toBeGreaterThan(0)
}

test('without a network the last known state stays, with its age, and recovers', async ({
  app,
  toolyard,
}) => {
  const name = 'made-meanwhile'
  const shell = new Shell(app)
  const servers = new Servers(app)
  await app.goto('/servers')
  await servers.row('everything').waitFor()
  try {
    await app.setOffline(true)
    await shell.disconnected().waitFor('visible', 20)
    expect(await servers.row('everything').isVisible()).toBe(true)
    await check(app, 'Servers', 'offline')
    await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    await app.setOffline(false)
    await shell.disconnected().waitFor('hidden', 45)
    await servers.row(name).waitFor('visible', 20)
  } finally {
    await app.setOffline(false)
    await toolyard.api.remove(name)
  }
})

test('when Toolyard dies the page says so, and goes on when it is back', { tag: '@main' }, async ({
  open,
}) => {
  test.setTimeout(120_000)
  const toolyard = await Toolyard.start()
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'before', start: false })
    const page = await open({ toolyard, person: ADMIN })
    const shell = new Shell(page)
    const servers = new Servers(page)
    await page.goto('/servers')
    await servers.row('before').waitFor()
    await toolyard.stop('SIGKILL')
    await shell.disconnected().waitFor('visible', 20)
    expect(await servers.row('before').isVisible()).toBe(true)
    await check(page, 'Servers', 'Toolyard is down')
    await toolyard.serve()
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'after', start: false })
    await shell.disconnected().waitFor('hidden', 45)
    await servers.row('after').waitFor('visible', 20)
  } finally {
    await toolyard.dispose()
  }
})

test('a start while Toolyard is away shows the last visit, and nothing can be changed until it is back', {
  tag: '@main',
}, async ({ open }) => {
  test.setTimeout(120_000)
  const toolyard = await Toolyard.start()
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'known', start: false })
    const page = await open({ toolyard, person: ADMIN, serviceWorker: true })
    const shell = new Shell(page)
    const server = new ServerPage(page, 'known')
    await server.goto()
    await waitForServiceWorker(page)
    // The worker keeps the files that it hands out: those of this page, the second time.
    await server.goto()
    await server.waitForState('Stopped')
    await sendToBackground(page)
    await toolyard.stop('SIGKILL')
    await server.goto()
    await shell.disconnected().waitFor('visible', 20)
    await server.waitForState('Stopped')
    const start = page
      .byRole('main')
      .byRole('button', /^Start$/)
      .first()
    expect(await start.attribute('aria-disabled')).toBe('true')
    await check(page, 'Server', 'last visit')
    await toolyard.serve()
    await shell.disconnected().waitFor('hidden', 45)
    await expect.poll(() => start.attribute('aria-disabled')).not.toBe('true')
  } finally {
    await toolyard.dispose()
  }
})

test('a page whose code could not be loaded while Toolyard was away shows itself when it is back', async ({
  open,
}) => {
  test.setTimeout(120_000)
  const toolyard = await Toolyard.start()
  try {
    await toolyard.api.send('POST', '/servers', { entry: TIME, name: 'known', start: false })
    const page = await open({ toolyard, person: ADMIN })
    const shell = new Shell(page)
    const server = new ServerPage(page, 'known')
    await server.goto()
    await server.waitForState('Stopped')
    await toolyard.stop('SIGKILL')
    await shell.disconnected().waitFor('visible', 20)
    await server.part('Metrics')
    await page.byRole('main').byRole('button', 'Try again').first().waitFor('visible', 20)
    await page.byRole('main').byText('Toolyard does not answer').first().waitFor()
    expect(await page.byText('imported module').count()).toBe(0)
    await check(page, 'Server, metrics', 'code not loaded')
    await toolyard.serve()
    await shell.disconnected().waitFor('hidden', 45)
    await page.byRole('main').byText('No calls in this time').first().waitFor('visible', 20)
    expect(await page.path()).toBe('/servers/known/metrics')
  } finally {
    await toolyard.dispose()
  }
})

test('a log keeps its lines while there is no network, says that it is paused, and goes on', async ({
  app,
}) => {
  const server = new ServerPage(app, 'everything')
  const shell = new Shell(app)
  const main = app.byRole('main')
  const line = main.byRole('log', 'Log of everything').byText(/Starting default|stdio/i)
  await server.goto('/logs')
  await line.first().waitFor('visible', 20)
  try {
    await app.setOffline(true)
    await shell.disconnected().waitFor('visible', 20)
    await main.byText('Paused: there is no connection to Toolyard').first().waitFor('visible', 20)
    expect(await line.first().isVisible()).toBe(true)
    expect(await main.byText('You may not read logs').count()).toBe(0)
    await check(app, 'Server, logs', 'offline')
    await app.setOffline(false)
    await shell.disconnected().waitFor('hidden', 45)
    await main
      .byText(/^Live$/)
      .first()
      .waitFor('visible', 30)
  } finally {
    await app.setOffline(false)
  }
})
