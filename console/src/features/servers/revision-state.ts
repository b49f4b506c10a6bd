/** What is known of a revision that did not come to serve. Pure. */
import type { Revision, Server } from '@/api/generated/types'
import { t } from '@/lib/t'

/** Why a revision is no good one to go back to; `undefined` when nothing speaks against it. */
export function revisionTrouble(
  { number, lock_digest, served, spec }: Pick<Revision, 'number' | 'lock_digest' | 'served' | 'spec'>,
  { rollout }: Pick<Server, 'rollout'>,
): string | undefined {
  const last = rollout?.to_revision === number ? rollout : undefined
  if (last?.state === 'progressing') return undefined
  // A remote server has nothing to install.
  if (spec.runtime.kind !== 'remote' && lock_digest == null) return t('never installed')
  if (served === false) return t('never served')
  if (last?.state !== 'failed' && last?.state !== 'rolled_back') return undefined
  return last.switched_at == null ? t('its last rollout failed') : t('rolled back')
}
