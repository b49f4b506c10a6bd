/** What this browser remembers: small, and never anything secret. Every key begins with `toolyard.`. */
export const storage = {
  /** The stored text, or `undefined`; also when storage is switched off. */
  get(name: string): string | undefined {
    try {
      return localStorage.getItem(`toolyard.${name}`) ?? undefined
    } catch {
      return undefined
    }
  },
  /** Stores a text, or takes it away. Where storage is switched off or full, nothing happens. */
  set(name: string, value: string | undefined): void {
    try {
      if (value === undefined) localStorage.removeItem(`toolyard.${name}`)
      else localStorage.setItem(`toolyard.${name}`, value)
    } catch {
      // A preference that is not kept is no error.
    }
  },
}
