import { call } from '@/api/client'
import { listAudit } from '@/api/generated/audit'
import type { AuditRecord } from '@/api/generated/types'

/** More lines than this are not put into one file: a shorter range does. */
export const MOST_EXPORTED = 50_000
const PAGE = 500

/** Reads every line that fits, newest first. `progress` hears how many there are so far. */
export async function readAll(
  query: Omit<NonNullable<Parameters<typeof listPage>[0]>, 'cursor'>,
  signal: AbortSignal,
  progress: (count: number) => void,
): Promise<{ lines: AuditRecord[]; complete: boolean }> {
  const lines: AuditRecord[] = []
  let cursor: string | undefined
  do {
    const page = await listPage({ ...query, ...(cursor === undefined ? {} : { cursor }) }, signal)
    lines.push(...page.items)
    progress(lines.length)
    cursor = page.next_cursor ?? undefined
  } while (cursor !== undefined && lines.length < MOST_EXPORTED)
  return { lines, complete: cursor === undefined }
}

type Query = NonNullable<NonNullable<(typeof listAudit)['input']>['query']>

function listPage(query: Query, signal: AbortSignal) {
  return call(listAudit, { query: { ...query, limit: PAGE } }, { signal, awaited: true })
}

/** The lines as a file of one JSON object a line. */
export function jsonLines(lines: readonly AuditRecord[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}
