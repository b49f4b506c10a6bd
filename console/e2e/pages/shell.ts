import type { ConsolePage, Handle } from '../support/page.ts'

/** What is around every page: navigation, the person's menu. */
export class Shell {
  constructor(private readonly page: ConsolePage) {}

  /** Goes to a page by the navigation. */
  async navigate(name: string): Promise<void> {
    await this.page
      .byRole('navigation')
      .byRole('link', new RegExp(`^${name}$`))
      .click()
  }

  /** The page's title. */
  heading(name: string): Handle {
    return this.page.byRole('main').byRole('heading', name).first()
  }

  async signOut(): Promise<void> {
    await this.#account().click()
    await this.page.byRole('menuitem', 'Sign out').click()
  }

  async chooseTheme(theme: 'Light' | 'Dark'): Promise<void> {
    await this.#account().click()
    await this.page.byRole('menuitem', `${theme} theme`).click()
  }

  /** What says that changes do not arrive. */
  disconnected(): Handle {
    return this.page.byText(/^No connection to Toolyard|^You are offline/).first()
  }

  /** What opens the person's menu: it says who and where they are. */
  #account(): Handle {
    return this.page.byRole('button', /^Account of | default · /).first()
  }
}
