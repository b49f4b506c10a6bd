import type { ConsolePage, Handle } from '../support/page.ts'

export class SignIn {
  constructor(private readonly page: ConsolePage) {}

  async waitFor(): Promise<void> {
    await this.page.byRole('button', /^Sign in$/).waitFor()
  }

  async as(email: string, password: string): Promise<void> {
    await this.page.byLabel(/^Email/).fill(email)
    await this.page.byLabel(/^Password/).fill(password)
    await this.page.byRole('button', /^Sign in$/).click()
  }

  /** Why signing in failed. */
  problem(): Handle {
    return this.page.byRole('main').byRole('alert').first()
  }
}
