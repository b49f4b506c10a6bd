import { check, expectSettled } from '../support/check.ts'
import { HOSTILE, harm, hostileEntry } from '../support/hostile.ts'
import { expect, test } from '../support/test.ts'
import { EVERYTHING } from '../support/toolyard.ts'

for (const kind of Object.keys(HOSTILE)) {
  test(`hostile ${kind} in a catalog entry is shown as text and does nothing`, async ({ app, toolyard }) => {
    const entry = hostileEntry(kind)
    await toolyard.api.send('POST', '/catalog/entries', { server: entry })
    for (const path of [
      `/marketplace?search=${kind}`,
      `/marketplace/test.hostile/${kind}`,
      `/deploy/test.hostile/${kind}`,
    ]) {
      await app.goto(path)
      await expectSettled(app)
      await expect.poll(() => app.byCss('main').text()).toContain(kind)
      expect(await app.evaluate(harm)).toEqual([])
    }
    await check(app, 'Deploy', `hostile ${kind}`)
  })
}

test('hostile text in a log is shown as text and does nothing', async ({ app, toolyard }) => {
  const name = 'hostile-log'
  // The real server says of an argument that it does not know it.
  const text = HOSTILE['html']?.text ?? ''
  await toolyard.api.send('POST', '/servers', { entry: EVERYTHING, name, arguments: [text] })
  try {
    await app.goto(`/servers/${name}/logs`)
    await app.byRole('main').byText('onerror').first().waitFor('visible', 30)
    expect(await app.evaluate(harm)).toEqual([])
    await check(app, 'Server, logs', 'hostile text')
  } finally {
    await toolyard.api.remove(name)
  }
})
