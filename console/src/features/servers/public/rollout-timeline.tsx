import { useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { cancelRollout, promoteRollout, rollbackServer } from '@/api/generated/servers'
import type { Rollout, RolloutState } from '@/api/generated/types'
import { useDenied } from '@/api/session'
import { readableTimes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Button } from '@/ui/button'
import { Notice } from '@/ui/notice'
import { Elapsed, RelativeTime } from '@/ui/relative-time'
import { Status, type StatusKind } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { Timeline, type TimelineStep } from '@/ui/timeline'
import { toast } from '@/ui/toast'
import { beyondReason, reasonAdvice, reasonText } from './phase'

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
 * belongs beside it (`LogView`), and `RolloutActions` into the head of what is around it.
 */
export function RolloutTimeline({
  rollout,
  remote = false,
  explain = true,
}: {
  rollout: Rollout
  /** Whether the server runs elsewhere: then nobody here has its log. */
  remote?: boolean
  /** Whether to say why it failed and what to do; not where the page says so anyway. */
  explain?: boolean
}) {
  const message = plainText(readableTimes(rollout.message ?? ''))
  const beyond = beyondReason(rollout.reason, message)
  const advice = reasonAdvice(rollout.reason, { remote, message })
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
      {rollout.state === 'progressing' && <WaitsFor rollout={rollout} />}
      <Timeline label={t('Steps')} steps={rolloutSteps(rollout)} live={rollout.state === 'progressing'} />
      {bad && explain && (
        <Notice
          tone={rollout.state === 'failed' ? 'bad' : 'warn'}
          title={capital(reasonText(rollout.reason))}
          actions={rollout.reason === 'tools_lost' && <AcceptLostTools rollout={rollout} />}
        >
          {beyond !== '' && (
            <p className="wrap-anywhere whitespace-pre-wrap">
              <TickedText text={beyond} />
            </p>
          )}
          {advice !== undefined && <p>{advice}</p>}
          {rollout.state === 'rolled_back' && (
            <p>
              {rollout.switched_at == null
                ? t('What served before serves on; no call was lost to this.')
                : t('What served before serves again.')}
            </p>
          )}
        </Notice>
      )}
    </div>
  )
}

/** What a rollout under way waits for, when that is no work of its own. */
function WaitsFor({ rollout }: { rollout: Rollout }) {
  const { canary, from_revision: from, to_revision: to } = rollout
  if (onTrial(rollout) && canary != null) {
    const clients = canary.clients ?? []
    return (
      <Notice title={t('Revision {to} is tried on a part of the calls', { to })}>
        <p>
          {t('It takes {weight} of 100 calls; the others go to revision {from}.', {
            weight: canary.weight,
            from: from ?? '',
          })}
        </p>
        {clients.length > 0 && (
          <p className="wrap-anywhere">
            {plural(
              clients.length,
              'It takes every call of {names}.',
              'It takes every call of these: {names}.',
              {
                names: oneLine(clients.join(', '), 500),
              },
            )}
          </p>
        )}
        <p>
          {canary.promote_after_seconds == null || canary.started_at == null
            ? t('It serves all of them once somebody promotes it.')
            : t('Without a failure it serves all of them {seconds} s after its first call could come.', {
                seconds: canary.promote_after_seconds,
              })}
        </p>
      </Notice>
    )
  }
  if (rollout.reason === 'observing' && rollout.switched_at != null) {
    return (
      <Notice title={t('Revision {to} serves, and is observed', { to })}>
        {t('When it fails now, revision {from} takes over again at once.', { from: from ?? '' })}
      </Notice>
    )
  }
  if (rollout.next_attempt_at != null) {
    return (
      <Notice title={capital(reasonText(rollout.reason))}>
        {t('It goes on')} <RelativeTime at={rollout.next_attempt_at} />
      </Notice>
    )
  }
  return null
}

/** Whether a canary takes calls, and nobody decided yet. */
export function onTrial({ state, canary }: Rollout): boolean {
  return state === 'progressing' && canary?.started_at != null && canary.promoted_at == null
}

/** Asks for something of a rollout; the events tell what became of it. */
function useAsk(): [
  busy: boolean,
  ask: (asked: () => Promise<unknown>, done: string, failed: string) => void,
] {
  const [busy, setBusy] = useState(false)
  const ask = (asked: () => Promise<unknown>, done: string, failed: string) => {
    setBusy(true)
    asked()
      .then(
        () => toast.done({ title: done }),
        (error: unknown) => toast.problem(failed, error),
      )
      .finally(() => setBusy(false))
  }
  return [busy, ask]
}

/** What can be done with a rollout under way: promote its canary, and cancel it. */
export function RolloutActions({ rollout }: { rollout: Rollout }) {
  const [promoting, promote] = useAsk()
  const [cancelling, cancel] = useAsk()
  const denied = useDenied('server:operate')
  const deniedPromotion = useDenied('server:deploy')
  if (rollout.state !== 'progressing') return null
  const name = rollout.server
  return (
    <>
      {onTrial(rollout) && (
        <Button
          size="small"
          variant="primary"
          busy={promoting}
          disabledReason={deniedPromotion}
          onClick={() =>
            promote(
              () =>
                callToChange(
                  promoteRollout,
                  { path: { name } },
                  t('It is not known whether revision {number} of {name} takes all calls', {
                    number: rollout.to_revision,
                    name,
                  }),
                ),
              t('Revision {number} of {name} takes all calls', { number: rollout.to_revision, name }),
              t('Could not promote it'),
            )
          }
        >
          {t('Promote')}
        </Button>
      )}
      <Button
        size="small"
        busy={cancelling}
        disabledReason={denied}
        onClick={() =>
          cancel(
            () =>
              callToChange(
                cancelRollout,
                { path: { name } },
                t('It is not known whether the rollout of {name} is cancelled', { name }),
              ),
            t('The rollout of {name} is cancelled', { name }),
            t('Could not cancel the rollout'),
          )
        }
      >
        {t('Cancel the rollout')}
      </Button>
    </>
  )
}

/** Points the server to the revision all the same. */
function AcceptLostTools({ rollout }: { rollout: Rollout }) {
  const [busy, ask] = useAsk()
  const denied = useDenied('server:deploy')
  const { server: name, to_revision: revision } = rollout
  return (
    <Button
      size="small"
      busy={busy}
      disabledReason={denied}
      onClick={() =>
        ask(
          () =>
            callToChange(
              rollbackServer,
              { path: { name }, body: { revision } },
              t('It is not known whether revision {number} of {name} is being rolled out', {
                number: revision,
                name,
              }),
            ),
          t('Revision {number} of {name} is being rolled out', { number: revision, name }),
          t('Could not roll it out'),
        )
      }
    >
      {t('Roll it out without them')}
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
      title: <TickedText text={capital(readableTimes(firstLine(step.message)))} limit={200} />,
      at: step.at,
      kind:
        (isSetback(step.message) || wentBack(log, index)) && !(last && hasEnded(rollout))
          ? 'bad'
          : last
            ? lastKind(rollout.state)
            : 'done',
    }
  })
}

/**
 * What an attempt ends with: a rollout that tries again goes on in spite of it. A step has no code, only the words of
 * whoever met it: an agent, a package client, or a reason's name where there were no words.
 */
const SETBACK = [
  /^(it|the process|the (remote )?server|the image|the registry) (ended|was killed|was ended|was not|did not|does not|stopped|fell silent|used more|kept more|closed|wrote|answered)/,
  /\b(could not|cannot|can't|failed|failure|error|refused|timed out|timeout|unreachable|not found|no such|denied|crashed|status [45]\d\d)\b/,
  /\bended (by itself|by signal|with)\b|\bexit(ed)?( with)? (code|status)\b/,
  /^(image not found|package not found|checksum mismatch|config invalid|credential missing|credential expired|start timeout|crash loop|exited|out of memory|out of disk|engine unavailable|unsupported by engine|no capacity|remote unreachable|internal)$/,
]

/** Whether a step tells of an attempt that failed. Names in it, such as that of a package, tell nothing. */
function isSetback(message: string): boolean {
  const words = firstLine(message)
    .replaceAll(/`[^`]*`/g, '…')
    .toLowerCase()
  return SETBACK.some((one) => one.test(words))
}

/** What a rollout does by itself, one thing after the other. */
const ADVANCE =
  /^(begun|placed|prepared|promoted|revision|toolbox|requested|resolving|installing|awaiting|probing|observing|canary)\b/

/** Whether a step, whatever its words, was followed by what the rollout did before it: it tried again. */
function wentBack(log: readonly { message: string }[], index: number): boolean {
  const [before, step, after] = [log[index - 1], log[index], log[index + 1]]
  if (before === undefined || step === undefined || after === undefined) return false
  return before.message === after.message && !ADVANCE.test(step.message)
}

function hasEnded({ state }: Rollout): boolean {
  return state !== 'progressing'
}

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
