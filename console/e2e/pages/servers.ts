import type { ConsolePage, Handle } from '../support/page.ts'
import { waitFor } from '../support/wait.ts'

/** The list of servers. */
export class Servers {
  constructor(private readonly page: ConsolePage) {}

  row(name: string): Handle {
    const itself = new RegExp(`(?:^|[^0-9a-z-])${name}(?![0-9a-z-])`)
    return this.page.byRole('main').byRole('row').containing(itself).first()
  }

  async choose(name: string): Promise<void> {
    await this.page.byLabel(new RegExp(`^Choose ${name}$`)).click()
  }

  async search(text: string): Promise<void> {
    await this.page.byRole('main').byRole('searchbox').first().fill(text)
  }

  /** Scrolls as far as it goes, again and again, until the last row is there. */
  async scrollToEnd(last: string): Promise<void> {
    await waitFor(`row ${last}`, async () => {
      await this.page.evaluate(() => {
        for (const element of [document.scrollingElement, ...document.querySelectorAll('main, main *')]) {
          if (element !== null && element.scrollHeight > element.clientHeight)
            element.scrollTop = element.scrollHeight
        }
      })
      return this.row(last).isVisible()
    })
  }
}
