import { Fragment } from 'react'
import type { Health, InstanceError } from '@/api/generated/types'
import { formatNumber, readableTimes } from '@/lib/format'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { KeyValueList } from '@/ui/key-value-list'
import { Link } from '@/ui/link'
import { RelativeTime } from '@/ui/relative-time'
import { Status } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { beyondReason, phaseKind, phaseText, reasonText } from './phase'

/** How a set of instances fares: of a toolbox, or of the organization. */
export function HealthFacts({ health }: { health: Health }) {
  const { phases, copies, restarts, last_success_at: answered } = health
  if (phases.length === 0) return <p className="text-muted">{t('No instance runs.')}</p>
  return (
    <KeyValueList
      items={[
        [
          t('Instances'),
          <ul key="phases" className="flex flex-wrap gap-x-4 gap-y-1">
            {phases.map(({ phase, count }) => (
              <li key={phase}>
                <Status kind={phaseKind(phase)}>
                  {t('{count} {state}', {
                    count: formatNumber(count),
                    state: phaseText(phase).toLocaleLowerCase(),
                  })}
                </Status>
              </li>
            ))}
          </ul>,
        ],
        [t('Copies'), copies === 0 ? undefined : formatNumber(copies)],
        [t('Restarts'), formatNumber(restarts)],
        [t('Last answer'), answered == null ? t('none yet') : <RelativeTime key="answered" at={answered} />],
      ]}
    />
  )
}

/** What went wrong with instances, the newest first. */
export function ErrorList({
  errors,
  withToolbox = false,
}: {
  errors: readonly InstanceError[]
  withToolbox?: boolean
}) {
  return (
    <ul>
      {errors.map((error) => (
        <li
          key={`${error.instance} ${error.at} ${error.reason}`}
          className="border-b px-pad py-2.5 last:border-b-0"
        >
          <div className="flex flex-wrap items-center gap-x-4 gap-y-1">
            {error.server == null ? (
              <span className="text-muted">{t('a server that is gone')}</span>
            ) : (
              <Link to="/servers/$name" params={{ name: error.server }} className="id font-medium">
                {error.server}
              </Link>
            )}
            <span className="min-w-0 flex-1 basis-48">{reasonText(error.reason)}</span>
            <RelativeTime at={error.at} className="text-sm text-faint" />
          </div>
          <p className="mt-0.5 line-clamp-3 text-sm wrap-anywhere text-muted">
            {[
              beyondReason(error.reason, oneLine(readableTimes(error.message), 300)),
              withToolbox && error.toolbox != null ? t('on {toolbox}', { toolbox: error.toolbox }) : '',
            ]
              .filter((part) => part !== '')
              .map((part, index) => (
                <Fragment key={part}>
                  {index > 0 && ' · '}
                  <TickedText text={part} />
                </Fragment>
              ))}
          </p>
        </li>
      ))}
    </ul>
  )
}
