import { History, Trash2 } from 'lucide-react'
import { formatDuration } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { RelativeTime } from '@/ui/relative-time'
import { Status, type StatusKind } from '@/ui/status'
import type { PastRun } from './history'

/** What was run here before; each takes its input back into the form. */
export function HistoryCard({
  runs,
  target,
  onRepeat,
  onForget,
}: {
  runs: PastRun[]
  target: string
  onRepeat: (run: PastRun) => void
  onForget: () => void
}) {
  const here = runs.filter((run) => run.target === target).slice(0, 20)
  if (here.length === 0) return null
  const looks: Record<PastRun['outcome'], [StatusKind, string]> = {
    answered: ['good', t('Answered')],
    tool_error: ['warn', t('Tool error')],
    failed: ['bad', t('No answer')],
    cancelled: ['off', t('Cancelled')],
  }
  return (
    <Card
      flush
      title={t('Run before')}
      description={t('Kept in this browser until you sign out, without answers.')}
      actions={
        <Button size="small" variant="ghost" icon={Trash2} onClick={onForget}>
          {t('Forget all')}
        </Button>
      }
    >
      <ul>
        {here.map((run) => (
          <li
            key={run.id}
            className="flex flex-wrap items-center gap-x-4 gap-y-1 border-b px-pad py-1.5 last:border-b-0"
          >
            <span className="min-w-0 flex-1 basis-48">
              <span className="id block truncate">{oneLine(run.item, 120)}</span>
              <span className="id block truncate text-sm text-muted">{oneLine(run.input, 160)}</span>
            </span>
            <Status kind={looks[run.outcome][0]} className="text-sm">
              {looks[run.outcome][1]}
            </Status>
            <span className="tabular w-16 text-right text-sm text-muted">{formatDuration(run.took)}</span>
            <RelativeTime at={run.at} className="w-24 text-right text-sm text-muted" />
            <Button
              size="small"
              variant="ghost"
              icon={History}
              aria-label={t('Use again: {item}', { item: oneLine(run.item, 60) })}
              onClick={() => onRepeat(run)}
            >
              {t('Use again')}
            </Button>
          </li>
        ))}
      </ul>
    </Card>
  )
}
