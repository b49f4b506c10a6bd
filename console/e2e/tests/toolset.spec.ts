import { Shell } from '../pages/shell.ts'
import { ToolsetPage } from '../pages/toolset.ts'
import { check } from '../support/check.ts'
import { callTool } from '../support/mcp-client.ts'
import { expect, test } from '../support/test.ts'
import { BOOTSTRAP_KEY, TIME } from '../support/toolyard.ts'

test('a person makes a toolset of chosen tools, and a client sees these, by their names in it, and no others', {
  tag: '@main',
}, async ({ app, toolyard }) => {
  const name = 'pair'
  await app.goto('/toolsets/new')
  const toolset = new ToolsetPage(app)
  try {
    await toolset.name(name)
    await toolset.choose('everything', 'echo')
    await toolset.choose('time', 'get_current_time')
    await app.byRole('main').byRole('button', 'Name and describe echo').click()
    await app.byRole('main').byLabel('Name in the toolset').first().fill('say')
    await check(app, 'New toolset', 'tools chosen')
    await toolset.create()
    await new Shell(app).heading(name).waitFor()
    await check(app, 'Toolset', 'made')
    const { mcp_path: path } = await toolyard.api.send<{ mcp_path: string }>('GET', `/toolsets/${name}`)
    const { tools, text } = await callTool(toolyard.url + path, BOOTSTRAP_KEY, /^say$/, {
      message: 'by way of a toolset',
    })
    expect(tools.length).toBe(2)
    expect(text).toContain('by way of a toolset')
  } finally {
    await toolyard.api.send('DELETE', `/toolsets/${name}`).catch(() => undefined)
  }
})

test('a search finds tools of servers that nobody opened, and says what it cannot search', {
  tag: '@main',
}, async ({ app, toolyard }) => {
  const stopped = Array.from({ length: 4 }, (_, at) => `quiet-${at}`)
  for (const name of stopped) await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
  try {
    await app.goto('/toolsets/new')
    await new Shell(app).heading('New toolset').waitFor()
    const toolset = new ToolsetPage(app)
    await toolset.search('get_current_t')
    await app
      .byRole('main')
      .byRole('checkbox', /^get_current_time/)
      .first()
      .waitFor('visible', 20)
    await app.byRole('main').byText('servers that do not answer now are not searched').first().waitFor()
    await check(app, 'New toolset', 'searched')
    await toolset.search('no-such-tool')
    await app
      .byRole('main')
      .byText('No server and no tool has this in its name')
      .first()
      .waitFor('visible', 20)
    await check(app, 'New toolset', 'nothing found')
  } finally {
    for (const name of stopped) await toolyard.api.remove(name)
  }
})

test("a toolset's page begins with its members", async ({ app, toolyard }) => {
  const name = 'members-first'
  await toolyard.api.send('POST', '/toolsets', { name, members: [{ server: 'time' }] })
  try {
    await app.goto(`/toolsets/${name}`)
    await new Shell(app).heading(name).waitFor()
    const first = app
      .byRole('main')
      .byRole('button', /^Tools of/)
      .first()
    await first.waitFor()
    expect(await first.attribute('aria-label')).toBe('Tools of time')
  } finally {
    await toolyard.api.send('DELETE', `/toolsets/${name}`)
  }
})

test('what is typed into a toolset stays when somebody else deletes it, until it is given up', async ({
  app,
  toolyard,
}) => {
  const name = 'deleted-while-typed'
  await toolyard.api.send('POST', '/toolsets', { name, members: [{ server: 'time' }] })
  try {
    await app.goto(`/toolsets/${name}`)
    await new Shell(app).heading(name).waitFor()
    const main = app.byRole('main')
    const field = main.byLabel('Description').first()
    await field.fill('typed meanwhile')
    await toolyard.api.send('DELETE', `/toolsets/${name}`)
    await main.byText('It was deleted elsewhere').first().waitFor('visible', 20)
    expect(await field.value()).toBe('typed meanwhile')
    expect(await main.byRole('button', /^Save changes$/).attribute('aria-disabled')).toBe('true')
    await check(app, 'Toolset', 'deleted elsewhere while something is typed')
    await main.byRole('link', /^Go to the toolsets$/).click()
    const question = app.byRole('dialog', 'Leave without saving?')
    await question.byRole('button', /^Stay$/).click()
    await question.waitFor('hidden')
    expect(await field.value()).toBe('typed meanwhile')
    await main.byRole('button', /^Discard$/).click()
    await new Shell(app).heading('Not found').waitFor('visible', 20)
  } finally {
    await toolyard.api.send('DELETE', `/toolsets/${name}`).catch(() => undefined)
  }
})

test('a toolset that was changed elsewhere cannot be saved over, and says so once', async ({
  app,
  toolyard,
}) => {
  const name = 'changed-while-typed'
  const members = [{ server: 'time' }]
  await toolyard.api.send('POST', '/toolsets', { name, members })
  try {
    await app.goto(`/toolsets/${name}`)
    await new Shell(app).heading(name).waitFor()
    const main = app.byRole('main')
    const field = main.byLabel('Description').first()
    await field.fill('typed meanwhile')
    await toolyard.api.send('PUT', `/toolsets/${name}`, { name, description: 'from elsewhere', members })
    await main.byText('It was changed elsewhere').first().waitFor('visible', 20)
    expect(await main.byRole('button', /^Save changes$/).attribute('aria-disabled')).toBe('true')
    await check(app, 'Toolset', 'changed elsewhere while something is typed')
    await main.byRole('button', /^Show the new state$/).click()
    await expect.poll(() => field.value()).toBe('from elsewhere')
  } finally {
    await toolyard.api.send('DELETE', `/toolsets/${name}`)
  }
})
