import type { AuditRecord } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { RelativeTime } from '@/ui/relative-time'

/** What people did, the newest first. */
export function Activity({ records: all }: { records: readonly AuditRecord[] }) {
  // The console itself asks for it with every page that speaks MCP; the audit log has it.
  const records = all.filter((record) => record.action !== 'session.mcp_key')
  if (records.length === 0) return <p className="p-pad text-muted">{t('Nobody did anything yet.')}</p>
  return (
    <ul>
      {records.map((record) => (
        <li
          key={record.id}
          className="flex min-h-row flex-wrap items-center gap-x-2 gap-y-0.5 border-b px-pad py-1.5 last:border-b-0"
        >
          <span className="min-w-0 flex-1 basis-60 wrap-anywhere">
            <span className="text-muted">{oneLine(record.actor_display || record.actor, 80)}</span>{' '}
            {deedText(record.action)} <Target record={record} />
          </span>
          {record.outcome !== 'done' && <Badge tone="warn">{outcomeText(record.outcome)}</Badge>}
          <RelativeTime at={record.at} className="text-sm text-faint" />
        </li>
      ))}
    </ul>
  )
}

function outcomeText(outcome: string): string {
  return outcome === 'refused' ? t('refused') : oneLine(outcome, 20)
}

/** What was done, as a verb; an action that this build does not know by its code. */
function deedText(action: string): string {
  const texts: Record<string, string> = {
    'session.create': t('signed in'),
    'session.delete': t('signed out'),
    'member.password': t('changed the password of'),
    'catalog.review': t('reviewed'),
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
  }
  return texts[action] ?? verbs[action.slice(action.lastIndexOf('.') + 1)] ?? oneLine(action, 60)
}

function Target({ record: { target, detail } }: { record: AuditRecord }) {
  const slash = target.indexOf('/')
  const [noun, name] = slash < 0 ? [target, ''] : [target.slice(0, slash), target.slice(slash + 1)]
  // A session says nothing that its actor does not.
  if (noun === 'session' || name === '') return null
  // An id tells people nothing; what was made has its name in the detail.
  const shown = /^[0-9a-f-]{36}$/.test(name) ? nameIn(detail) : name
  return (
    <>
      {oneLine(noun, 40).replaceAll('_', ' ')}{' '}
      {shown !== undefined && <code className="id">{oneLine(shown, 120)}</code>}
    </>
  )
}

function nameIn(detail: unknown): string | undefined {
  if (typeof detail !== 'object' || detail === null) return undefined
  const { name, email } = detail as { name?: unknown; email?: unknown } // as: each is checked on the next line
  return [name, email].find((one) => typeof one === 'string')
}
