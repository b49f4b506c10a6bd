let rows = 0

/** An id for a row that is only on the screen. */
export function rowId(): string {
  rows += 1
  return `row${rows}`
}
