/** The headers of a remote server that was registered by its address: as a form has them, and as the API takes them. Pure. */
import type { CurrentSettings, ServerSettings } from '@/api/generated/types'
import { t } from '@/lib/t'
import type { SettingsIssue } from './settings'

/** A header of every request. Its value is a secret. */
export interface HeaderRow {
  /** Only for the screen. */
  id: string
  name: string
  value: string
  /** The credential that gives the value; `''` while none is chosen. */
  credential: string | undefined
}

/** Whether headers can be added: no entry says which ones it takes. */
export function takesHeaders({ kind, entry }: Pick<CurrentSettings, 'kind' | 'entry'>): boolean {
  return kind === 'remote' && entry == null
}

/** The headers that are sent now. One whose value was taken away is not sent, though the server remembers its name. */
export function headersOf(settings: CurrentSettings): HeaderRow[] {
  if (!takesHeaders(settings)) return []
  const { inputs, credentials } = settings
  return [
    ...Object.entries(inputs).map(([name, value]) => ({ name, value, credential: undefined })),
    ...Object.entries(credentials).map(([name, { id, name: shown }]) => ({
      name,
      value: '',
      credential: shown ?? id,
    })),
  ].map((row) => ({ id: `set-${row.name}`, ...row }))
}

/** What is wrong with them. A row without anything in it is none. */
export function headerIssues(rows: readonly HeaderRow[]): SettingsIssue[] {
  const issues: SettingsIssue[] = []
  const names = new Set<string>()
  for (const row of rows) {
    if (isEmpty(row)) continue
    const lower = row.name.toLowerCase()
    let message: string | undefined
    if (row.name === '') message = t('Give the header a name')
    else if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(row.name)) message = t('It is not a header’s name')
    else if (names.has(lower)) message = t('{name} is given twice', { name: row.name })
    else if (row.credential === '') message = t('Choose a credential')
    else if (row.credential === undefined && row.value === '') message = t('Give it a value')
    if (message !== undefined) issues.push({ path: ['headers', row.id], message })
    names.add(lower)
  }
  return issues
}

function isEmpty(row: HeaderRow): boolean {
  return row.name === '' && row.value === '' && row.credential === undefined
}

/** What the API takes: of a server that exists only what differs from `before`. */
export function headersBody(
  rows: readonly HeaderRow[],
  before: readonly HeaderRow[] = [],
): Required<Pick<ServerSettings, 'inputs' | 'credentials' | 'unset_environment'>> {
  const inputs: Record<string, string> = {}
  const credentials: Record<string, string> = {}
  const named = (name: string) => (row: HeaderRow) => row.name.toLowerCase() === name.toLowerCase()
  for (const row of rows) {
    if (row.name === '') continue
    const old = before.find(named(row.name))
    if (row.credential !== undefined) {
      if (row.credential !== old?.credential) credentials[row.name] = row.credential
    } else if (old === undefined || old.credential !== undefined || old.value !== row.value)
      inputs[row.name] = row.value
  }
  const unset = before.filter((old) => !rows.some(named(old.name))).map((old) => old.name)
  return { inputs, credentials, unset_environment: unset }
}

/** The form's field for a field of the API; `undefined` when it is no header's. */
export function headerFieldOf(field: string, rows: readonly HeaderRow[]): string | undefined {
  const header = /^(?:inputs|credentials)\.(.+)$/.exec(field)?.[1]?.toLowerCase()
  const row = rows.find((one) => one.name.toLowerCase() === header)
  return row === undefined ? undefined : `headers.${row.id}`
}
