import { Servers } from '../pages/servers.ts'
import { Shell } from '../pages/shell.ts'
import { check } from '../support/check.ts'
import { expect, test } from '../support/test.ts'
import { ADMIN, TIME, Toolyard } from '../support/toolyard.ts'

const MANY = 1000
const AT_ONCE = 8

test('a list of 1,000 servers opens at once, scrolls to its end, and is searched', async ({ open }) => {
  test.setTimeout(150_000)
  const toolyard = await Toolyard.start()
  try {
    await seed(toolyard)
    const page = await open({ toolyard, person: ADMIN })
    const servers = new Servers(page)
    await page.goto('/servers')
    await new Shell(page).heading('Servers').waitFor()
    await servers.row('many-0000').waitFor()
    await check(page, 'Servers', '1,000 servers')
    // Only what is seen is in the document.
    expect(await page.evaluate(() => document.querySelectorAll('main *').length)).toBeLessThan(6000)
    // Printed are all of them.
    const printed = await page.evaluate(() => {
      window.dispatchEvent(new Event('beforeprint'))
      const rows = document.querySelectorAll('main [data-row]').length
      window.dispatchEvent(new Event('afterprint'))
      return rows
    })
    expect(printed).toBe(MANY)
    await servers.scrollToEnd(`many-${String(MANY - 1).padStart(4, '0')}`)
    await servers.search('many-0777')
    await servers.row('many-0777').waitFor()
    await servers.row('many-0776').waitFor('hidden')
  } finally {
    await toolyard.dispose()
  }
})

async function seed(toolyard: Toolyard): Promise<void> {
  const numbers = Array.from({ length: MANY }, (_, number) => number)
  const worker = async () => {
    for (let number = numbers.shift(); number !== undefined; number = numbers.shift()) {
      const name = `many-${String(number).padStart(4, '0')}`
      await toolyard.api.send('POST', '/servers', { entry: TIME, name, start: false })
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
