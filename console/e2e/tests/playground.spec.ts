import { Playground } from '../pages/playground.ts'
import { check } from '../support/check.ts'
import { HOSTILE, harm } from '../support/hostile.ts'
import { expect, test } from '../support/test.ts'

test('a person calls a tool in the playground and sees the result', { tag: '@main' }, async ({ app }) => {
  const playground = new Playground(app)
  await app.goto('/playground/everything')
  await playground.choose('echo')
  await playground.field(/^message/).fill('hello from the browser')
  await check(app, 'Playground', 'form')
  await playground.run()
  await playground.says(/Echo: hello from the browser/).waitFor('visible', 20)
  await check(app, 'Playground', 'answered')
})

test('a long call shows its progress and can be cancelled', async ({ app }) => {
  const playground = new Playground(app)
  await app.goto('/playground/everything')
  await playground.choose('trigger-long-running-operation')
  await playground.field(/^duration/).fill('60')
  await playground.field(/^steps/).fill('60')
  await playground.run()
  await app.byRole('progressbar').first().waitFor('visible', 20)
  await check(app, 'Playground', 'running')
  await playground.cancel()
  await playground.says('Cancelled').waitFor()
  await check(app, 'Playground', 'cancelled')
})

for (const [kind, { text }] of Object.entries(HOSTILE)) {
  test(`hostile ${kind} in a tool's answer is shown as text and does nothing`, async ({ app }) => {
    const playground = new Playground(app)
    await app.goto('/playground/everything')
    await playground.choose('echo')
    // Control characters cannot be typed into a line; the others can.
    await playground.field(/^message/).fill(text.replaceAll(/\p{Cc}/gu, ''))
    await playground.run()
    await playground.says(/Echo: /).waitFor('visible', 20)
    expect(await app.evaluate(harm)).toEqual([])
  })
}
