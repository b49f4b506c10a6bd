import { Shell } from '../pages/shell.ts'
import { ToolsetPage } from '../pages/toolset.ts'
import { check } from '../support/check.ts'
import { callTool } from '../support/mcp-client.ts'
import { expect, test } from '../support/test.ts'
import { BOOTSTRAP_KEY } from '../support/toolyard.ts'

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
