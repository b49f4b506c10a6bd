import type { AuditRecord } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { RelativeTime } from '@/ui/relative-time'
import { activityText } from './activity-text'

/** What people did, the newest first: all that the overview got, which leaves out what is no deed. */
export function Activity({ records }: { records: readonly AuditRecord[] }) {
  if (records.length === 0) return <p className="p-pad text-muted">{t('Nobody did anything yet.')}</p>
  return (
    <ul>
      {records.map((record) => (
        <li
          key={record.id}
          className="flex min-h-row flex-wrap items-center gap-x-2 gap-y-0.5 border-b px-pad py-1.5 last:border-b-0"
        >
          <Deed record={record} />
          {record.outcome !== 'done' && <Badge tone="warn">{outcomeText(record.outcome)}</Badge>}
          <RelativeTime at={record.at} className="text-sm text-faint" />
        </li>
      ))}
    </ul>
  )
}

function Deed({ record }: { record: AuditRecord }) {
  const { who, deed, noun, name } = activityText(record)
  return (
    <span className="min-w-0 flex-1 basis-60 wrap-anywhere">
      <span className="text-muted">{who}</span> {deed} {noun}{' '}
      {name !== undefined && <code className="id">{name}</code>}
    </span>
  )
}

function outcomeText(outcome: string): string {
  return outcome === 'refused' ? t('refused') : oneLine(outcome, 20)
}
