import type { ConsolePage, Handle, Name } from '../support/page.ts'

/** The form that deploys an entry, and the rollout that follows. */
export class Deploy {
  constructor(private readonly page: ConsolePage) {}

  field(label: Name): Handle {
    return this.page.byRole('main').byLabel(label).first()
  }

  async name(name: string): Promise<void> {
    await this.page.byRole('main').byLabel(/^Name/).first().fill(name)
  }

  async review(): Promise<void> {
    await this.page.byRole('button', /^Review$/).click()
  }

  async deploy(): Promise<void> {
    await this.page.byRole('button', /^Deploy$/).click()
  }

  steps(): Handle {
    return this.page.byRole('main').byRole('list', 'Steps').first()
  }

  /** What a server that answers is shown with. */
  ready(): Handle {
    return this.page.byRole('main').byText('It answers').first()
  }

  async openServer(): Promise<void> {
    await this.page.byRole('main').byRole('link', 'Open the server').first().click()
  }
}
