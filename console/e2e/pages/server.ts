import type { ConsolePage, Handle } from '../support/page.ts'

export type Part = 'Overview' | 'Tools' | 'Logs' | 'Metrics' | 'Revisions' | 'Settings'

/** The pages of one server. */
export class ServerPage {
  constructor(
    private readonly page: ConsolePage,
    private readonly name: string,
  ) {}

  async goto(below = ''): Promise<void> {
    await this.page.goto(`/servers/${this.name}${below}`)
    await this.heading().waitFor()
  }

  heading(): Handle {
    return this.page
      .byRole('main')
      .byRole('heading', new RegExp(`^${this.name}$`))
      .first()
  }

  /** Waits until the page's head says that the server is in this state. */
  async waitForState(state: string, seconds = 20): Promise<void> {
    await this.page
      .byRole('main')
      .byCss('header')
      .byText(new RegExp(`^${state}$`))
      .first()
      .waitFor('visible', seconds)
  }

  async part(part: Part): Promise<void> {
    await this.page
      .byRole('navigation', 'Parts of the server')
      .byRole('link', new RegExp(`^${part}$`))
      .click()
  }

  async press(action: string): Promise<void> {
    await this.page
      .byRole('main')
      .byRole('button', new RegExp(`^${action}$`))
      .first()
      .click()
  }

  async menu(action: string): Promise<void> {
    await this.press('More actions')
    await this.page.byRole('menuitem', action).click()
  }

  dialog(): Handle {
    return this.page.byRole('dialog').first()
  }

  /** Says yes in the dialog that asks. */
  async confirm(action: string): Promise<void> {
    await this.dialog()
      .byRole('button', new RegExp(`^${action}$`))
      .click()
    await this.dialog().waitFor('hidden')
  }
}
