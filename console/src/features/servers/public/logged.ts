/** Whose log tells what people look for. Pure. */
import type { Instance, Reason, Rollout, Server } from '@/api/generated/types'
import { t } from '@/lib/t'

/** Stands for the instance that ended last: of a deployment that failed, or of what ran before. */
export const PREVIOUS = 'previous'

/** Whose log: of one instance, of a revision, or of what serves when nothing is said. */
export interface LogSource {
  /** Its id, or {@link PREVIOUS}. */
  instance?: string | undefined
  revision?: number | undefined
}

/** Whether an instance takes calls: the one that does, or one of several of the revision that serves. */
export function serves(server: Server, instance: Instance): boolean {
  if (server.instance_id != null) return instance.id === server.instance_id
  return server.enabled && instance.phase === 'ready' && instance.revision === server.revision
}

/** Whether anything runs that could write to this log: the log of what ended stays open, and says nothing of it. */
export function isWritten(
  source: LogSource,
  { instances, rollout }: Pick<Server, 'instances' | 'rollout'>,
): boolean {
  const running = instances.filter(
    ({ phase, next_attempt_at }) => phase !== 'stopped' && (phase !== 'failed' || next_attempt_at != null),
  )
  const { instance, revision } = source
  if (instance === PREVIOUS) return false
  if (instance !== undefined) return running.some((one) => one.id === instance)
  // Its package is installed before there is an instance.
  const installed = rollout?.state === 'progressing' ? rollout.to_revision : undefined
  if (revision !== undefined)
    return installed === revision || running.some((one) => one.revision === revision)
  return installed !== undefined || running.length > 0
}

/** The log of what a rollout brings, not of what serves beside it; `undefined` when there is none to read. */
export function logOfRollout(server: Server): LogSource | undefined {
  const { rollout, instances } = server
  if (rollout == null || server.kind === 'remote') return undefined
  const revision = rollout.to_revision
  const newer = instances.findLast((one) => one.revision === revision && !serves(server, one))
  if (newer !== undefined) return { instance: newer.id }
  if (rollout.state === 'progressing' || rollout.state === 'done')
    return instances.length > 0 ? {} : undefined
  // A restart that failed: the one of the same revision that serves on is not meant.
  return instances.some((one) => one.revision === revision) ? { revision, instance: PREVIOUS } : { revision }
}

/** Says whose log is beside a rollout. */
export function logTitle(rollout: Rollout, log: LogSource): string {
  return log.instance === undefined && log.revision === undefined
    ? t('Log of what serves')
    : t('Log of revision {number}', { number: rollout.to_revision })
}

/** What is wrong before anything ran, or where nobody can ask for a log. */
const WITHOUT_LOG: ReadonlySet<Reason> = new Set([
  'awaiting_toolbox',
  'no_capacity',
  'toolbox_unreachable',
  'toolbox_removed',
  'engine_unavailable',
  'unsupported_by_engine',
  'credential_missing',
  'remote_unreachable',
  'quarantined',
])

/** The log that tells why a server is in trouble; `undefined` when none does. */
export function logOfTrouble(server: Server): LogSource | undefined {
  if (server.kind === 'remote' || WITHOUT_LOG.has(server.reason)) return undefined
  if (server.instances.length > 0) return {}
  return server.rollout == null ? undefined : logOfRollout(server)
}
