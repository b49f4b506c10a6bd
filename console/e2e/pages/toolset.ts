import type { ConsolePage } from '../support/page.ts'

/** Putting a toolset together. */
export class ToolsetPage {
  constructor(private readonly page: ConsolePage) {}

  async name(name: string): Promise<void> {
    await this.page.byRole('main').byLabel(/^Name/).first().fill(name)
  }

  /** Looks for servers and tools by name. */
  async search(text: string): Promise<void> {
    await this.page.byRole('main').byLabel('Search servers and tools').fill(text)
  }

  /** Takes one tool of a server. */
  async choose(server: string, tool: string): Promise<void> {
    await this.page.byRole('button', `Tools of ${server}`).click()
    await this.page
      .byRole('checkbox', new RegExp(`^${tool}(?![\\w-])`))
      .first()
      .click()
  }

  async create(): Promise<void> {
    await this.page.byRole('button', 'Create the toolset').click()
  }
}
