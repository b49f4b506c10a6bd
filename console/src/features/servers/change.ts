/** How a change to a server is made, beside what is changed: as a form has it, and as the API takes it. Pure. */
import type { UpdateServer } from '@/api/generated/types'
import { t } from '@/lib/t'
import type { SettingsIssue } from './public/settings'

/** How a change is made. */
export interface ManagedChange {
  /** Whether the new revision is tried on a part of the calls first. */
  canary: boolean
  /** How many of 100 calls it takes. */
  weight: string
  /** Whose calls it always takes, one a line. */
  clients: string
  /** After how many seconds it serves by itself; empty for only when somebody says so. */
  promoteAfter: string
  /** Whether it may list fewer tools than the one that serves. */
  acceptLost: boolean
  /** Whether it begins outside the time in which changes may be made. */
  now: boolean
}

/** How a change is made when nothing is said. */
export const USUAL_CHANGE: ManagedChange = {
  canary: false,
  weight: '10',
  clients: '',
  promoteAfter: '',
  acceptLost: false,
  now: false,
}

/** The form's field for a field of the API. */
export const CHANGE_FIELDS: Readonly<Record<string, string>> = {
  canary: 'canary',
  'canary.weight': 'weight',
  'canary.clients': 'clients',
  'canary.promote_after_seconds': 'promoteAfter',
}

/** What is wrong with it. */
export function changeIssues(values: ManagedChange): SettingsIssue[] {
  if (!values.canary) return []
  const issues: SettingsIssue[] = []
  const whole = (text: string, least: number, most: number) =>
    /^\d+$/.test(text.trim()) && Number(text) >= least && Number(text) <= most
  if (!whole(values.weight, clientsOf(values).length > 0 ? 0 : 1, 100))
    issues.push({ path: ['weight'], message: t('Give a whole number up to 100') })
  if (values.promoteAfter.trim() !== '' && !whole(values.promoteAfter, 1, 604_800))
    issues.push({ path: ['promoteAfter'], message: t('Give a whole number of seconds, at most a week') })
  return issues
}

type Manner = Pick<UpdateServer, 'canary' | 'accept_lost_tools' | 'now'>

/** How a change is made, as the API takes it. */
export function changeBody(values: ManagedChange): Manner {
  const body: Manner = {}
  if (values.now) body.now = true
  if (values.acceptLost) body.accept_lost_tools = true
  if (values.canary) {
    body.canary = { weight: Number(values.weight), clients: clientsOf(values) }
    if (values.promoteAfter.trim() !== '') body.canary.promote_after_seconds = Number(values.promoteAfter)
  }
  return body
}

function clientsOf(values: ManagedChange): string[] {
  return values.clients
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}
