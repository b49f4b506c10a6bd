/** What is known of a revision that did not come to serve. Pure. */
import type { Revision, Server } from '@/api/generated/types'
import { t } from '@/lib/t'

/**
 * Why a revision is no good one to go back to; `undefined` when nothing speaks against it. The API has no history of
 * rollouts: only the last one is known, and whether a revision was ever installed.
 */
export function revisionTrouble(
  { number, lock_digest, spec }: Pick<Revision, 'number' | 'lock_digest' | 'spec'>,
  { rollout }: Pick<Server, 'rollout'>,
): string | undefined {
  const last = rollout?.to_revision === number ? rollout : undefined
  if (last?.state === 'progressing') return undefined
  // A remote server has nothing to install.
  if (spec.runtime.kind !== 'remote' && lock_digest == null) return t('never installed')
  if (last?.state !== 'failed' && last?.state !== 'rolled_back') return undefined
  if (last.switched_at != null) return t('rolled back')
  // An earlier one may have served before its last rollout.
  return last.from_revision == null || last.from_revision < number
    ? t('never served')
    : t('its last rollout failed')
}
