import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN } from '../support/toolyard.ts'

interface Keys {
  items: { id: string; name: string; revoked_at?: string | null }[]
}

test('a key whose answer was lost is made once, and shown when it is asked for again', async ({
  open,
  toolyard,
}) => {
  const name = 'answer-lost'
  const page = await open({ person: ADMIN })
  const dialog = page.byRole('dialog').first()
  const active = async () => {
    const { items } = await toolyard.api.send<Keys>('GET', '/keys?limit=500')
    return items.filter((key) => key.name === name && key.revoked_at == null)
  }
  await page.goto('/access/keys')
  await page
    .byRole('main')
    .byRole('button', /^Create a key$/)
    .first()
    .click()
  await dialog.byLabel(/^Name/).fill(name)
  // The next request that changes something gets there, and its answer does not come back.
  await page.evaluate(() => {
    const real = window.fetch
    window.fetch = async (...request) => {
      const answer = await real(...request)
      if (request[1]?.method !== 'POST') return answer
      window.fetch = real
      throw new TypeError('the connection was cut')
    }
  })
  const create = dialog.byRole('button', /^Create the key$/)
  try {
    await create.click()
    await dialog.byText('It is not known whether that was done').first().waitFor()
    await expect.poll(async () => (await active()).length).toBe(1)
    await create.click()
    await dialog.byText('The key is shown only now').first().waitFor()
    expect((await active()).length).toBe(1)
    // It is given up by an answer, however often it is asked for.
    const question = page.byRole('dialog', 'Leave without copying?')
    for (let time = 0; time < 2; time += 1) {
      await page.press('Escape')
      await question.byText('cannot be shown again').first().waitFor()
      await question.byRole('button', /^Stay$/).click()
      await question.waitFor('hidden')
      await dialog.byText('The key is shown only now').first().waitFor()
    }
    await page.press('Escape')
    await question.byRole('button', /^Leave$/).click()
    await page.byRole('dialog').waitFor('hidden')
  } finally {
    for (const { id } of await active()) await toolyard.api.send('DELETE', `/keys/${id}`)
  }
})

test('a dialog waits for the answer that shows a secret, however it is closed', async ({
  open,
  toolyard,
}) => {
  const name = 'answer-delayed'
  const page = await open({ person: ADMIN })
  const dialog = page.byRole('dialog').first()
  const active = async () => {
    const { items } = await toolyard.api.send<Keys>('GET', '/keys?limit=500')
    return items.filter((key) => key.name === name && key.revoked_at == null)
  }
  await page.goto('/access/members')
  await page
    .byRole('main')
    .byRole('link', /^API keys/)
    .click()
  await page
    .byRole('main')
    .byRole('button', /^Create a key$/)
    .first()
    .click()
  await dialog.byLabel(/^Name/).fill(name)
  // The next request that changes something gets there, and its answer comes when the page says so.
  await page.evaluate(() => {
    const real = window.fetch
    window.fetch = async (...request) => {
      const answer = await real(...request)
      if (request[1]?.method !== 'POST') return answer
      window.fetch = real
      await new Promise((go) => window.addEventListener('test-answer', go, { once: true }))
      return answer
    }
  })
  try {
    await dialog.byRole('button', /^Create the key$/).click()
    await expect.poll(async () => (await active()).length).toBe(1)
    const said = () =>
      [...document.querySelectorAll('[role="dialog"] [role="status"]')].map((one) => one.textContent)
    await expect.poll(() => page.evaluate(said)).toContain('It is being sent')
    await page.press('Escape')
    await page.evaluate(() => {
      // As somebody who presses what looks disabled.
      for (const button of document.querySelectorAll<HTMLButtonElement>('[role="dialog"] button'))
        if (['Cancel', 'Close'].includes(button.getAttribute('aria-label') ?? button.textContent ?? ''))
          button.click()
    })
    await dialog.byLabel(/^Name/).waitFor()
    const question = page.byRole('dialog', 'Leave without the answer?')
    await page.evaluate(() => history.back())
    await question.waitFor()
    await question.byRole('button', /^Stay$/).click()
    await question.waitFor('hidden')
    await page.evaluate(() => window.dispatchEvent(new Event('test-answer')))
    await dialog.byText('The key is shown only now').first().waitFor()
    expect((await active()).length).toBe(1)
  } finally {
    for (const { id } of await active()) await toolyard.api.send('DELETE', `/keys/${id}`)
  }
})

test('the password of a new member stays on the screen until it was copied, or given up', async ({
  open,
  toolyard,
}) => {
  const email = 'once@example.test'
  const page = await open({ person: ADMIN })
  const dialog = page.byRole('dialog').first()
  await page.goto('/access/members')
  await page
    .byRole('main')
    .byRole('button', /^Add a member$/)
    .first()
    .click()
  await dialog.byLabel(/^Email/).fill(email)
  await dialog.byRole('button', /^Make one up$/).click()
  await dialog.byRole('button', /^Add the member$/).click()
  try {
    await dialog.byText('The password is shown only now').first().waitFor()
    await dialog.byRole('button', /^Done$/).click()
    const question = page.byRole('dialog', 'Leave without copying?')
    await question.byText('cannot be shown again').first().waitFor()
    await check(page, 'Members', 'password not copied')
    await question.byRole('button', /^Leave$/).click()
    await page.byRole('dialog').waitFor('hidden')
  } finally {
    const { items } = await toolyard.api.send<{ items: { id: string; email: string }[] }>('GET', '/members')
    for (const { id } of items.filter((member) => member.email === email))
      await toolyard.api.send('DELETE', `/members/${id}`)
  }
})

test('what was typed in a dialog is given up only after a question, by Escape and by going back', async ({
  app: page,
}) => {
  await page.goto('/servers')
  await page
    .byRole('navigation')
    .byRole('link', /^Credentials$/)
    .click()
  await page
    .byRole('main')
    .byRole('button', /^Create a credential$/)
    .first()
    .click()
  const dialog = page.byRole('dialog', 'Create a credential')
  const field = dialog.byLabel(/^Name/)
  const question = page.byRole('dialog', 'Leave without saving?')
  await field.fill('typed-and-kept')
  await page.press('Escape')
  await question.waitFor()
  await check(page, 'Credentials', 'a dialog left without saving')
  await question.byRole('button', /^Stay$/).click()
  await question.waitFor('hidden')
  expect(await field.value()).toBe('typed-and-kept')
  await page.evaluate(() => history.back())
  await question.waitFor()
  await question.byRole('button', /^Stay$/).click()
  await question.waitFor('hidden')
  expect(await field.value()).toBe('typed-and-kept')
  expect(await page.path()).toMatch(/^\/credentials/)
  await page.press('Escape')
  await question.byRole('button', /^Leave$/).click()
  await page.byRole('dialog').waitFor('hidden')
})
