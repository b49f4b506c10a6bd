import { useState } from 'react'
import { call } from '@/api/client'
import { cancelRollout } from '@/api/generated/servers'
import type { Rollout, RolloutState } from '@/api/generated/types'
import { useDenied } from '@/api/session'
import { t } from '@/lib/t'
import { plainText } from '@/lib/text'
import { Button } from '@/ui/button'
import { Notice } from '@/ui/notice'
import { Elapsed } from '@/ui/relative-time'
import { Status, type StatusKind } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { Timeline, type TimelineStep } from '@/ui/timeline'
import { toast } from '@/ui/toast'
import { reasonAdvice, reasonText } from './phase'

const KIND: Record<RolloutState, StatusKind> = {
  progressing: 'working',
  done: 'good',
  rolled_back: 'warn',
  cancelled: 'off',
  failed: 'bad',
}

/** Where a rollout is, in words. */
export function rolloutText(state: RolloutState): string {
  const texts: Record<RolloutState, string> = {
    progressing: t('Under way'),
    done: t('Done'),
    rolled_back: t('Rolled back'),
    cancelled: t('Cancelled'),
    failed: t('Failed'),
  }
  return texts[state] ?? state
}

/** Where a rollout is, as icon and text. */
export function RolloutStatus({ state }: { state: RolloutState }) {
  return <Status kind={KIND[state] ?? 'unknown'}>{rolloutText(state)}</Status>
}

/**
 * A rollout as it goes: its steps, how long it takes, and in the end what became of it and what to do. The log
 * belongs beside it (`LogView`), and `CancelRollout` into the head of what is around it.
 */
export function RolloutTimeline({
  rollout,
  explain = true,
}: {
  rollout: Rollout
  /** Whether to say why it failed and what to do; not where the page says so anyway. */
  explain?: boolean
}) {
  const advice = reasonAdvice(rollout.reason)
  const message = plainText(rollout.message)
  const bad = rollout.state === 'failed' || rollout.state === 'rolled_back'
  return (
    <div className="flex flex-col gap-4">
      <div className="flex flex-wrap items-center gap-x-4 gap-y-1">
        <RolloutStatus state={rollout.state} />
        <span className="text-muted">
          {rollout.from_revision == null
            ? t('to revision {to}', { to: rollout.to_revision })
            : t('from revision {from} to {to}', { from: rollout.from_revision, to: rollout.to_revision })}
        </span>
        <span className="ml-auto text-muted">
          <span className="sr-only">{t('Time taken')}: </span>
          <Elapsed since={rollout.started_at} until={rollout.ended_at} />
        </span>
      </div>
      <Timeline label={t('Steps')} steps={rolloutSteps(rollout)} live={rollout.state === 'progressing'} />
      {bad && explain && (
        <Notice
          tone={rollout.state === 'failed' ? 'bad' : 'warn'}
          title={capital(reasonText(rollout.reason))}
        >
          {message !== '' && (
            <p className="wrap-anywhere whitespace-pre-wrap">
              <TickedText text={message} />
            </p>
          )}
          {advice !== undefined && <p>{advice}</p>}
          {rollout.state === 'rolled_back' && (
            <p>{t('What served before serves on; no call was lost to this.')}</p>
          )}
        </Notice>
      )}
    </div>
  )
}

/** Stops a rollout that is under way; nothing when it is not. */
export function CancelRollout({ rollout }: { rollout: Rollout }) {
  const [busy, setBusy] = useState(false)
  const denied = useDenied('server:operate')
  if (rollout.state !== 'progressing') return null
  const cancel = () => {
    setBusy(true)
    call(cancelRollout, { path: { name: rollout.server } })
      .then(
        () => toast.done({ title: t('The rollout of {name} is cancelled', { name: rollout.server }) }),
        (error: unknown) => toast.problem(t('Could not cancel the rollout'), error),
      )
      .finally(() => setBusy(false))
  }
  return (
    <Button size="small" busy={busy} disabledReason={denied} onClick={cancel}>
      {t('Cancel the rollout')}
    </Button>
  )
}

/** The rollout's log as steps: what is over, what is being done, and how it ended. */
export function rolloutSteps(rollout: Rollout): TimelineStep[] {
  const log = rollout.log ?? []
  return log.map((step, index): TimelineStep => {
    const last = index === log.length - 1
    return {
      id: `${index}`,
      title: <TickedText text={capital(firstLine(step.message))} limit={200} />,
      at: step.at,
      kind: last ? lastKind(rollout.state) : SETBACK.test(step.message) ? 'warn' : 'done',
    }
  })
}

/** What goes on in spite of this is no step that is done. */
const SETBACK =
  /^(it|the process|the server) (ended|was killed|was ended|did not|stopped)|could not|cannot|failed/

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? ''
}

function lastKind(state: RolloutState): TimelineStep['kind'] {
  switch (state) {
    case 'progressing':
      return 'working'
    case 'failed':
      return 'bad'
    case 'rolled_back':
    case 'cancelled':
      return 'warn'
    default:
      return 'done'
  }
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
