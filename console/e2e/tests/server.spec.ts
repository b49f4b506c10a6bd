import { ServerPage } from '../pages/server.ts'
import { Servers } from '../pages/servers.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { TIME, type Toolyard } from '../support/toolyard.ts'
import { waitFor } from '../support/wait.ts'

/** A running copy of `time`, under a name of its own. */
async function copyOfTime(toolyard: Toolyard, name: string): Promise<void> {
  await toolyard.api.remove(name)
  await toolyard.api.send('POST', '/servers/time/clone', { name })
  await toolyard.api.waitServer(name, (server) => server.phase === 'ready')
}

test('a killed server shows why it is not ready, when it is tried again, and comes back', async ({
  app,
  toolyard,
}) => {
  test.setTimeout(120_000)
  const name = 'mortal'
  await copyOfTime(toolyard, name)
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await server.waitForState('Ready')
    // Each time it dies soon, the next attempt is later, until there is time to see why.
    const killed = new Set<number>()
    await waitFor('the next attempt is seconds away', async () => {
      const { phase, instances } = await toolyard.api.server(name)
      const pid = instances[0]?.pid
      if (phase === 'ready' && pid != null && !killed.has(pid)) {
        killed.add(pid)
        process.kill(pid, 'SIGKILL')
      }
      const next = instances[0]?.next_attempt_at
      return next != null && Date.parse(next) - Date.now() > 3000
    })
    await app
      .byRole('main')
      .byText(/signal 9 \(KILL\)/)
      .first()
      .waitFor()
    await app
      .byRole('main')
      .byText(/next attempt/i)
      .first()
      .waitFor()
    await check(app, 'Server', 'killed')
    await server.waitForState('Ready', 40)
    expect((await toolyard.api.server(name)).instances[0]?.restarts).toBeGreaterThan(0)
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a person changes a server and rolls it back', { tag: '@main' }, async ({ app, toolyard }) => {
  const name = 'changing'
  await copyOfTime(toolyard, name)
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await server.part('Settings')
    await app.byRole('main').byLabel('Memory').first().waitFor()
    await check(app, 'Server, settings', 'unchanged')
    await app.byRole('main').byLabel('Memory').first().fill('384')
    await check(app, 'Server, settings', 'changed')
    await server.press('Save and roll out')
    // The button is gone with what it saved.
    await expect.poll(() => app.evaluate(() => document.activeElement?.tagName)).toBe('H1')
    await toolyard.api.waitServer(name, (it) => it.revision === 2 && it.rollout?.state === 'done')
    // The form shows what was set, and asks for nothing more.
    await expect.poll(() => app.byRole('main').byLabel('Memory').first().value()).toBe('384')
    await app.byRole('button', 'Save and roll out').waitFor('hidden')
    await server.part('Revisions')
    await app.byRole('main').byRole('button', 'Roll back to revision 2').waitFor()
    await check(app, 'Server, revisions', 'two')
    await server.press('Roll back to revision 1')
    await check(app, 'Server, revisions', 'rollback asked')
    await server.confirm('Roll back')
    await toolyard.api.waitServer(name, (it) => it.rollout?.state === 'done' && it.revision !== 2)
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a revision that was rolled back shows its own log, and any revision can be chosen', async ({
  app,
  toolyard,
}) => {
  const name = 'rolled-back'
  await copyOfTime(toolyard, name)
  try {
    await toolyard.api.send('PATCH', `/servers/${name}`, { arguments: ['--no-such-argument'] })
    await toolyard.api.waitServer(name, (it) => it.rollout?.state === 'rolled_back')
    const server = new ServerPage(app, name)
    await server.goto()
    const main = app.byRole('main')
    await main.byRole('heading', 'Log of revision 2').waitFor()
    await main.byRole('log', `Log of ${name}`).byText('unrecognized arguments').first().waitFor()
    await check(app, 'Server', 'rolled back')
    await main.byRole('link', 'All logs').click()
    await expect.poll(() => app.path()).toContain('revision=2')
    await main.byText('unrecognized arguments').first().waitFor()
    expect(await main.byLabel('Whose log').text()).toContain('Revision 2')
    await check(app, 'Server, logs', 'of a revision')
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a person clones a server', { tag: '@main' }, async ({ app, toolyard }) => {
  const copy = 'time-again'
  try {
    const server = new ServerPage(app, 'time')
    await server.goto()
    await server.menu('Clone')
    await server.dialog().byLabel('Name of the copy').fill(copy)
    await check(app, 'Server', 'clone asked')
    await server.confirm('Clone')
    const cloned = new ServerPage(app, copy)
    await cloned.heading().waitFor()
    await cloned.waitForState('Ready', 30)
  } finally {
    await toolyard.api.remove(copy)
  }
})

test('a person stops and starts a server', { tag: '@main' }, async ({ app, toolyard }) => {
  const name = 'switched'
  await copyOfTime(toolyard, name)
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await server.waitForState('Ready')
    await server.press('Stop')
    await check(app, 'Server', 'stop asked')
    await server.confirm('Stop')
    await server.waitForState('Stopped')
    await check(app, 'Server', 'stopped')
    await server.press('Start')
    await server.waitForState('Ready')
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a server is deleted only after its name was typed', { tag: '@main' }, async ({ app, toolyard }) => {
  const name = 'doomed'
  await copyOfTime(toolyard, name)
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await server.menu('Delete')
    const button = server.dialog().byRole('button', /^Delete$/)
    await server.dialog().byLabel('to confirm').fill('doome')
    await check(app, 'Server', 'delete asked')
    expect(await button.attribute('aria-disabled')).toBe('true')
    await server.dialog().byLabel('to confirm').fill(name)
    await server.confirm('Delete')
    await expect.poll(() => app.path()).toMatch(/^\/servers(\?|$)/)
    await new Servers(app).row(name).waitFor('hidden', 20)
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a log follows the server, is filtered, and is bounded text', async ({ app }) => {
  const server = new ServerPage(app, 'everything')
  await server.goto('/logs')
  await app
    .byRole('main')
    .byText(/Starting default|stdio/i)
    .first()
    .waitFor('visible', 20)
  await check(app, 'Server, logs', 'following')
})

test('many servers are chosen and acted on, with a result for each', async ({ app, toolyard }) => {
  const names = ['batch-1', 'batch-2']
  for (const name of names) await toolyard.api.send('POST', '/servers/time/clone', { name })
  for (const name of names) await toolyard.api.waitServer(name, (server) => server.phase === 'ready')
  try {
    const servers = new Servers(app)
    await app.goto('/servers?search=batch')
    for (const name of names) await servers.choose(name)
    await check(app, 'Servers', 'chosen')
    await app.byRole('button', /^Stop/).first().click()
    await check(app, 'Servers', 'stop asked for several')
    await app.byRole('dialog').byRole('button', /^Stop/).first().click()
    for (const name of names) await toolyard.api.waitServer(name, (server) => server.phase === 'stopped')
    await app.byRole('dialog').byText('Accepted').first().waitFor()
    await check(app, 'Servers', 'result for each')
  } finally {
    for (const name of names) await toolyard.api.remove(name)
  }
})

test('a remote that was registered without a header is given one with the keyboard', {
  tag: '@main',
}, async ({ app, toolyard }) => {
  const name = 'far-away'
  await toolyard.api.remove(name)
  await toolyard.api.send('POST', '/servers', { name, url: 'https://mcp.example.com/mcp', start: false })
  try {
    const server = new ServerPage(app, name)
    await server.goto('/settings')
    const main = app.byRole('main')
    const add = main.byRole('button', /^Add a header$/)
    await add.waitFor()
    expect(await main.byText('What its entry asks for').count()).toBe(0)
    await add.focus()
    await app.press('Enter')
    const field = main.byRole('textbox', 'Name').first()
    await expect.poll(() => field.isFocused()).toBe(true)
    await app.type('X-Api-Token')
    await main.byLabel('Value').first().fill('not-a-real-secret')
    await check(app, 'Server, settings', 'header added')
    await server.press('Save and roll out')
    const credentials = async () => {
      const settings = await toolyard.api.send<{ credentials: object }>('GET', `/servers/${name}/settings`)
      return Object.keys(settings.credentials)
    }
    await expect.poll(credentials).toEqual(['X-Api-Token'])
    await app.byRole('button', 'Save and roll out').waitFor('hidden')
    await expect.poll(() => field.value()).toBe('X-Api-Token')
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a restart whose answer was lost is not said to have failed', async ({ app, toolyard }) => {
  const name = 'answer-of-restart-lost'
  await copyOfTime(toolyard, name)
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await server.waitForState('Ready')
    const before = (await toolyard.api.server(name)).rollout?.id
    // The next request that changes something gets there, and its answer does not come back.
    await app.evaluate(() => {
      const real = window.fetch
      window.fetch = async (...request) => {
        const answer = await real(...request)
        if (request[1]?.method !== 'POST') return answer
        window.fetch = real
        throw new TypeError('the connection was cut')
      }
    })
    await server.press('Restart')
    const said = app.byRole('region', 'Notifications')
    await said.byText(`It is not known whether ${name} restarts`).first().waitFor()
    await said.byText('this page shows what became of it').first().waitFor()
    expect(await said.text()).not.toContain('Could not')
    await check(app, 'Server', 'answer of a restart lost')
    expect((await toolyard.api.server(name)).rollout?.id).not.toBe(before)
    // By then the page shows what became of it.
    await said.waitFor('hidden', 30)
  } finally {
    await toolyard.api.remove(name)
  }
})

test("what is typed into a server's settings stays when somebody else deletes it, until it is given up", async ({
  app,
  toolyard,
}) => {
  const name = 'deleted-while-typed'
  await toolyard.api.remove(name)
  await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
  try {
    const server = new ServerPage(app, name)
    await server.goto('/settings')
    const main = app.byRole('main')
    const field = main.byLabel('Memory').first()
    await field.fill('384')
    await toolyard.api.remove(name)
    await main.byText('It was deleted elsewhere').first().waitFor('visible', 20)
    expect(await field.value()).toBe('384')
    expect(await main.byRole('button', /^Save and roll out$/).attribute('aria-disabled')).toBe('true')
    expect(await main.byRole('button', /^(Start|Delete)/).count()).toBe(0)
    await check(app, 'Server, settings', 'deleted elsewhere while something is typed')
    await main.byRole('link', /^Go to the servers$/).click()
    await app
      .byRole('dialog', 'Leave without saving?')
      .byRole('button', /^Leave$/)
      .click()
    await expect.poll(() => app.path()).toMatch(/^\/servers(\?|$)/)
  } finally {
    await toolyard.api.remove(name)
  }
})
