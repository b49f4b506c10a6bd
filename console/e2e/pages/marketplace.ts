import type { ConsolePage, Handle } from '../support/page.ts'

/** The catalog's entries, and the page of one. */
export class Marketplace {
  constructor(private readonly page: ConsolePage) {}

  async search(text: string): Promise<void> {
    await this.page.byLabel('Search the marketplace').fill(text)
  }

  card(entry: string): Handle {
    return this.page.byRole('main').byRole('article').containing(entry).first()
  }

  /** Opens an entry's page and waits for it: the list shows the entry's name, too. */
  async open(entry: string): Promise<void> {
    await this.card(entry).byRole('link').first().click()
    await this.page.byRole('main').byRole('button', 'Copy the name').waitFor()
  }

  /** From an entry's page to the form that deploys it. */
  async deploy(): Promise<void> {
    await this.page
      .byRole('main')
      .byRole('link', /^Deploy$/)
      .first()
      .click()
  }
}
