import type { ConsolePage } from '../support/page.ts'

export class SignIn {
  constructor(private readonly page: ConsolePage) {}

  async as(email: string, password: string): Promise<void> {
    await this.page.byLabel('Email').fill(email)
    await this.page.byLabel('Password').fill(password)
    await this.page.byRole('button', 'Sign in').click()
  }
}
