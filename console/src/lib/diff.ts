/** A line of a comparison. */
export interface DiffLine {
  kind: 'same' | 'added' | 'removed'
  text: string
  /** Its number before and after, counted from 1. */
  before: number | undefined
  after: number | undefined
}

/** More lines than this on both sides are not aligned but shown as all removed and all added. */
const MOST_CELLS = 4_000_000

/** Compares two texts line by line: the longest common subsequence, after the equal beginning and end are set aside. */
export function diffLines(before: string, after: string): DiffLine[] {
  const old = before.split('\n')
  const now = after.split('\n')
  let start = 0
  while (start < old.length && start < now.length && old[start] === now[start]) start += 1
  let oldEnd = old.length
  let nowEnd = now.length
  while (oldEnd > start && nowEnd > start && old[oldEnd - 1] === now[nowEnd - 1]) {
    oldEnd -= 1
    nowEnd -= 1
  }
  const lines: DiffLine[] = []
  const same = (at: number, other: number) =>
    lines.push({ kind: 'same', text: old[at] ?? '', before: at + 1, after: other + 1 })
  for (let at = 0; at < start; at += 1) same(at, at)
  align(old, now, start, oldEnd, nowEnd, lines)
  for (let at = oldEnd; at < old.length; at += 1) same(at, at - oldEnd + nowEnd)
  return lines
}

function align(
  old: string[],
  now: string[],
  start: number,
  oldEnd: number,
  nowEnd: number,
  lines: DiffLine[],
): void {
  const rows = oldEnd - start
  const columns = nowEnd - start
  const aligned = rows * columns <= MOST_CELLS
  const lengths = aligned ? commonLengths(old, now, start, rows, columns) : undefined
  const at = (row: number, column: number) => lengths?.[row * (columns + 1) + column] ?? 0
  let row = 0
  let column = 0
  while (row < rows || column < columns) {
    const text = old[start + row]
    if (lengths !== undefined && row < rows && column < columns && text === now[start + column]) {
      lines.push({ kind: 'same', text: text ?? '', before: start + row + 1, after: start + column + 1 })
      row += 1
      column += 1
    } else if (row < rows && (column >= columns || at(row + 1, column) >= at(row, column + 1))) {
      lines.push({ kind: 'removed', text: text ?? '', before: start + row + 1, after: undefined })
      row += 1
    } else {
      lines.push({
        kind: 'added',
        text: now[start + column] ?? '',
        before: undefined,
        after: start + column + 1,
      })
      column += 1
    }
  }
}

function commonLengths(
  old: string[],
  now: string[],
  start: number,
  rows: number,
  columns: number,
): Uint32Array {
  const width = columns + 1
  const lengths = new Uint32Array((rows + 1) * width)
  for (let row = rows - 1; row >= 0; row -= 1) {
    for (let column = columns - 1; column >= 0; column -= 1) {
      lengths[row * width + column] =
        old[start + row] === now[start + column]
          ? (lengths[(row + 1) * width + column + 1] ?? 0) + 1
          : Math.max(lengths[(row + 1) * width + column] ?? 0, lengths[row * width + column + 1] ?? 0)
    }
  }
  return lengths
}
