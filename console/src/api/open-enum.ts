/** The run-time check of an enum in an answer: a newer server may send a value that this build does not know yet. */
export function isString(value: unknown): boolean {
  return typeof value === 'string'
}
