/** What browsers say of a file of the console that they could not get. */
const NOT_LOADED = /dynamically imported module|importing a module script failed|unable to preload css/i

/** Whether an error is that a file of the console did not come, which says nothing about what the person did. */
export function isNotLoaded(error: unknown): boolean {
  return error instanceof Error && NOT_LOADED.test(error.message)
}

/** Whether Toolyard, and what stands before it, answers now. */
export function isThere(): Promise<boolean> {
  return fetch('/healthz', { cache: 'no-store' }).then(
    (answer) => answer.ok,
    () => false,
  )
}
