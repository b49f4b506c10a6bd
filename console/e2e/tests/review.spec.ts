import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, Api } from '../support/toolyard.ts'

test('what somebody else decided about an entry is said in the dialog that is open, which stays', async ({
  open,
  toolyard,
}) => {
  const name = 'io.example/decided-meanwhile'
  const path = `/catalog/entries/${encodeURIComponent(name)}`
  const { id, key } = await toolyard.api.createKey('submits-an-entry', 'developer')
  const server = {
    name,
    description: 'An entry that two people look at.',
    version: '1.0.0',
    packages: [
      {
        registryType: 'npm',
        identifier: '@example/decided-meanwhile',
        version: '1.0.0',
        transport: { type: 'stdio' },
      },
    ],
  }
  try {
    await new Api(toolyard.url, key).send('POST', '/catalog/entries', { server })
    const page = await open({ person: ADMIN })
    await page.goto('/marketplace/review')
    await page
      .byRole('main')
      .byRole('listitem')
      .containing(name)
      .first()
      .byRole('button', /^Approve$/)
      .click()
    const dialog = page.byRole('dialog').first()
    const approve = dialog.byRole('button', /^Approve$/)
    await approve.focus()
    await toolyard.api.send('POST', `${path}/review`, { approve: false, reason: 'no licence' })
    await dialog.byText('Somebody else rejected it meanwhile: no licence').first().waitFor('visible', 20)
    expect(await approve.isFocused()).toBe(true)
    expect(await approve.attribute('aria-disabled')).toBe('true')
    await check(page, 'Review', 'decided meanwhile')
    await page.press('Escape')
    await dialog.waitFor('hidden')
    await page.byRole('main').byText('Nothing waits for a review').first().waitFor()
  } finally {
    await toolyard.api.send('DELETE', path).catch(() => undefined)
    await toolyard.api.send('DELETE', `/keys/${id}`)
  }
})
