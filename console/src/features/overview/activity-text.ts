/** A line of the audit log as a sentence: who did what, and to what. Pure. */
import type { AuditRecord } from '@/api/generated/types'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'

/** The parts of the sentence, in its order. */
export interface ActivityText {
  who: string
  deed: string
  /** What kind of thing it was done to; `undefined` where the deed says all. */
  noun: string | undefined
  /** Which one. */
  name: string | undefined
}

/** The sentence of a line. */
export function activityText(record: AuditRecord): ActivityText {
  const { noun, name } = targetOf(record)
  return { who: whoText(record), deed: movedText(record) ?? deedText(record, noun !== undefined), noun, name }
}

const MOST_NAMED = 3

/** Which servers Toolyard placed elsewhere because their toolbox is gone, or did not; `undefined` where nothing is said of that. */
function movedText({ action, outcome, detail }: AuditRecord): string | undefined {
  if (action !== 'toolbox.replace') return undefined
  const { servers, count } = (detail ?? {}) as { servers?: unknown; count?: unknown } // as: each is checked below
  const names = Array.isArray(servers) ? servers.filter((name) => typeof name === 'string') : []
  // Lines of before name none, and were written also where nothing was placed anywhere.
  if (names.length === 0) return outcome === 'done' ? t('evicted') : t('did not evict')
  const number = typeof count === 'number' ? count : names.length
  const told =
    names.length === number && number <= MOST_NAMED
      ? oneLine(names.join(', '), 200)
      : plural(number, '{count} server', '{count} servers')
  return outcome === 'done'
    ? t('placed {servers} elsewhere, away from', { servers: told })
    : t('did not place {servers} elsewhere, away from', { servers: told })
}

function whoText({ actor, actor_display: display }: AuditRecord): string {
  // A part of Toolyard that did something by itself, such as `system:lost`: its name is none of a person.
  return actor.startsWith('system:') ? t('Toolyard') : oneLine(display || actor, 80)
}

/** What was done, as a verb; an action that this build does not know by its code. */
function deedText({ action }: AuditRecord, withTarget: boolean): string {
  const texts: Record<string, string> = {
    'session.create': t('signed in'),
    'session.delete': t('signed out'),
    'session.authenticate': t('gave the password again'),
    'member.password': t('changed the password of'),
    'catalog.review': t('reviewed'),
    'toolbox.return': t('heard again from'),
  }
  const verbs: Record<string, string> = {
    create: t('created'),
    update: t('changed'),
    put: t('set'),
    set: t('set'),
    delete: t('deleted'),
    start: t('started'),
    stop: t('stopped'),
    restart: t('restarted'),
    rollback: t('rolled back'),
    clone: t('cloned'),
    cancel: t('cancelled the rollout of'),
    promote: t('promoted the rollout of'),
    publish: t('published'),
    submit: t('submitted'),
    approve: t('approved'),
    reject: t('rejected'),
    withdraw: t('withdrew'),
    rate: t('rated'),
    verify: t('verified'),
    sync: t('synced'),
    enroll: t('enrolled'),
    join: t('joined with'),
    rejoin: t('joined again with'),
    drain: t('drained'),
    resume: t('resumed'),
    remove: t('removed'),
    revoke: t('revoked'),
    rotate: t('gave another secret to'),
  }
  const known = texts[action] ?? verbs[action.slice(action.lastIndexOf('.') + 1)]
  if (known !== undefined) return known
  const code = oneLine(action, 60)
  // What was refused is named by the right that it needs, such as `credential:use`.
  if (action.includes(':'))
    return withTarget ? t('asked for {code} on', { code }) : t('asked for {code}', { code })
  return withTarget ? t('did {code} to', { code }) : t('did {code}', { code })
}

function targetOf({ target, detail }: AuditRecord): Pick<ActivityText, 'noun' | 'name'> {
  const slash = target.indexOf('/')
  const [noun, name] = slash < 0 ? [target, ''] : [target.slice(0, slash), target.slice(slash + 1)]
  // A session says nothing that its actor does not.
  if (noun === 'session' || name === '') return { noun: undefined, name: undefined }
  // An id tells people nothing; what was made has its name in the detail.
  const shown = /^[0-9a-f-]{36}$/.test(name) ? nameIn(detail) : name
  return {
    noun: oneLine(noun, 40).replaceAll('_', ' '),
    name: shown === undefined ? undefined : oneLine(shown, 120),
  }
}

function nameIn(detail: unknown): string | undefined {
  if (typeof detail !== 'object' || detail === null) return undefined
  const { name, email } = detail as { name?: unknown; email?: unknown } // as: each is checked on the next line
  return [name, email].find((one) => typeof one === 'string')
}
