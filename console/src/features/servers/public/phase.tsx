import type { Phase, Reason } from '@/api/generated/types'
import { t } from '@/lib/t'
import { Status, type StatusKind } from '@/ui/status'

const KIND: Record<Phase, StatusKind> = {
  ready: 'good',
  pending: 'waiting',
  preparing: 'working',
  starting: 'working',
  degraded: 'warn',
  stopping: 'working',
  stopped: 'off',
  failed: 'bad',
}

/** A phase in words. */
export function phaseText(phase: Phase): string {
  const texts: Record<Phase, string> = {
    ready: t('Ready'),
    pending: t('Pending'),
    preparing: t('Preparing'),
    starting: t('Starting'),
    degraded: t('Degraded'),
    stopping: t('Stopping'),
    stopped: t('Stopped'),
    failed: t('Failed'),
  }
  // A newer server may know a phase that this console does not.
  return texts[phase] ?? phase
}

/** A reason in words: its code, readable. */
export function reasonText(reason: Reason): string {
  return reason.replaceAll('_', ' ')
}

/** The state of a server or an instance. */
export function PhaseStatus({ phase, className }: { phase: Phase; className?: string }) {
  return (
    <Status kind={KIND[phase] ?? 'unknown'} className={className}>
      {phaseText(phase)}
    </Status>
  )
}
