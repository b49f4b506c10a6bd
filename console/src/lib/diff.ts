import { diffArrays } from 'diff'

/** A line of a comparison. */
export interface DiffLine {
  kind: 'same' | 'added' | 'removed'
  text: string
  /** Its number before and after, counted from 1. */
  before: number | undefined
  after: number | undefined
}

/** Texts that differ in more lines are not aligned but shown as all removed and all added. */
const MOST_EDITS = 2000

/** Compares two texts line by line. */
export function diffLines(before: string, after: string): DiffLine[] {
  const old = before.split('\n')
  const now = after.split('\n')
  const parts = diffArrays(old, now, { maxEditLength: MOST_EDITS }) ?? [
    { value: old, removed: true, added: false },
    { value: now, removed: false, added: true },
  ]
  let oldAt = 0
  let nowAt = 0
  return parts.flatMap(({ value, added, removed }) =>
    value.map((text): DiffLine => {
      if (!added) oldAt += 1
      if (!removed) nowAt += 1
      return {
        kind: added ? 'added' : removed ? 'removed' : 'same',
        text,
        before: added ? undefined : oldAt,
        after: removed ? undefined : nowAt,
      }
    }),
  )
}
