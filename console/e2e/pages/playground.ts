import type { ConsolePage, Handle } from '../support/page.ts'

/** Trying what a server or toolset offers. */
export class Playground {
  constructor(private readonly page: ConsolePage) {}

  async choose(item: string): Promise<void> {
    await this.page
      .byRole('region', 'What it offers')
      .byRole('button', new RegExp(`^${item}(?![\\w-])`))
      .first()
      .click()
  }

  field(label: string | RegExp): Handle {
    return this.page.byRole('main').byLabel(label).first()
  }

  async run(): Promise<void> {
    await this.page.byRole('main').byRole('button', /^Run$/).first().click()
  }

  async cancel(): Promise<void> {
    await this.page
      .byRole('main')
      .byRole('button', /^Cancel$/)
      .first()
      .click()
  }

  /** What the page says after a call. */
  says(text: string | RegExp): Handle {
    return this.page.byRole('main').byText(text).first()
  }
}
