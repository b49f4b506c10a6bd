import { Deploy } from '../pages/deploy.ts'
import { Marketplace } from '../pages/marketplace.ts'
import { ServerPage } from '../pages/server.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { EVERYTHING, TIME } from '../support/toolyard.ts'

test('a person finds a server by typing, deploys it with the generated form, and watches until it answers', {
  tag: '@main',
}, async ({ app, toolyard }) => {
  test.setTimeout(120_000)
  const name = 'clock'
  const marketplace = new Marketplace(app)
  const deploy = new Deploy(app)
  try {
    await app.goto('/')
    await new Shell(app).navigate('Marketplace')
    await marketplace.search('time')
    await marketplace.card(TIME).waitFor()
    await check(app, 'Marketplace', 'searched')
    await marketplace.open(TIME)
    await app.byRole('main').byText(TIME).first().waitFor()
    await check(app, 'Entry', 'of the curated list')
    await marketplace.deploy()
    await deploy.name(name)
    await deploy.field('local-timezone').fill('Europe/Paris')
    await check(app, 'Deploy', 'form')
    await deploy.review()
    await app.byRole('main').byText('Europe/Paris').first().waitFor()
    await check(app, 'Deploy', 'review')
    await deploy.deploy()
    await deploy.steps().waitFor()
    await deploy.ready().waitFor('visible', 60)
    await check(app, 'Deploy', 'ready')
    expect((await toolyard.api.server(name)).phase).toBe('ready')
    await deploy.openServer()
    const server = new ServerPage(app, name)
    await server.heading().waitFor()
    await server.waitForState('Ready')
    await check(app, 'Server', 'ready')
  } finally {
    await toolyard.api.remove(name)
  }
})

test('a deployment form says what is wrong at the field and sends nothing', async ({ app, toolyard }) => {
  const deploy = new Deploy(app)
  await app.goto(`/deploy/${TIME}`)
  await deploy.name('Not a name')
  await deploy.review()
  const field = app.byRole('main').byLabel(/^Name/).first()
  await expect.poll(() => field.attribute('aria-invalid')).toBe('true')
  expect(await field.isFocused()).toBe(true)
  await check(app, 'Deploy', 'refused')
  await deploy.name('time')
  await app.byText('There is a server with this name').first().waitFor()
  const { items } = await toolyard.api.send<{ items: { name: string }[] }>('GET', '/servers')
  expect(items.map((server) => server.name).sort()).toEqual(['everything', 'time'])
})

test('a refused disk limit leads to its field, each time, also where “Advanced” was closed', async ({
  app,
}) => {
  const deploy = new Deploy(app)
  const main = app.byRole('main')
  const advanced = main
    .byCss('summary')
    .containing(/^Advanced/)
    .first()
  await app.goto(`/deploy/${TIME}`)
  await deploy.name('boundless')
  await advanced.click()
  await deploy.field(/^Disk/).fill('0')
  await advanced.click()
  await deploy.review()
  await main.byText('without a limit').first().waitFor()
  await deploy.deploy()
  await main.byText('It cannot be without a limit here').first().waitFor()
  await expect.poll(() => deploy.field(/^Disk/).isFocused()).toBe(true)
  await check(app, 'Deploy', 'disk refused')
  await deploy.field(/^Disk/).fill('x')
  for (let round = 0; round < 2; round += 1) {
    await advanced.click()
    await deploy.review()
    await expect.poll(() => deploy.field(/^Disk/).isFocused()).toBe(true)
  }
})

test('who may not let a server see a path of the host is told so in the form', async ({ open, toolyard }) => {
  const person = { email: 'developer@example.test', password: 'correct-horse-battery', role: 'developer' }
  await toolyard.api.send('POST', '/members', person).catch(() => undefined)
  const page = await open({ person })
  const deploy = new Deploy(page)
  await page.goto('/deploy/io.github.modelcontextprotocol/server-filesystem')
  await deploy.field('directory').fill('/srv/data')
  await deploy.review()
  const field = deploy.field('directory')
  await expect.poll(() => field.attribute('aria-invalid')).toBe('true')
  await page.byRole('main').byText('Owners, admins and operators may').first().waitFor()
  await check(page, 'Deploy', 'grant refused')
})

test('a server that never answers is shown as such, and its rollout can be cancelled', async ({
  app,
  toolyard,
}) => {
  const name = 'silent'
  // The real server, told to speak HTTP where it is expected to speak on standard output.
  await toolyard.api.send('POST', '/servers', {
    entry: EVERYTHING,
    name,
    arguments: ['streamableHttp'],
    start_timeout_ms: 120_000,
  })
  try {
    const server = new ServerPage(app, name)
    await server.goto()
    await app.byRole('main').byText('Under way').first().waitFor()
    await app
      .byRole('main')
      .byText(/awaiting probe/i)
      .first()
      .waitFor('visible', 20)
    await check(app, 'Server', 'rollout under way')
    await server.press('Cancel the rollout')
    await toolyard.api.waitServer(name, (it) => it.rollout?.state === 'cancelled')
    await app.byRole('main').byText('Cancelled').first().waitFor()
  } finally {
    await toolyard.api.remove(name)
  }
})
