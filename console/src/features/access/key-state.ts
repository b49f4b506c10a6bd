import type { Action, ApiKey, KeyScope } from '@/api/generated/types'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'

/** Whether a key works. */
export type KeyState = 'active' | 'expired' | 'revoked'

/** Whether a key works at this time. */
export function keyState(key: ApiKey, now: number): KeyState {
  if (key.revoked_at != null) return 'revoked'
  if (key.expires_at != null && Date.parse(key.expires_at) <= now) return 'expired'
  return 'active'
}

/** A state in words. */
export function keyStateText(state: KeyState): string {
  return { active: t('Active'), expired: t('Expired'), revoked: t('Revoked') }[state]
}

/** What a key for MCP clients needs: to see what there is, and to call it. */
export const CALLING: readonly Action[] = ['tool:call', 'server:read', 'toolset:read']

/** What a key is narrowed to, in a few words. */
export function scopeText(scope: KeyScope | null | undefined): string {
  const actions = scope?.actions ?? []
  const resources = scope?.resources ?? []
  const what =
    actions.length === 0
      ? t('All of its role')
      : actions.length === CALLING.length && CALLING.every((action) => actions.includes(action))
        ? t('Call tools')
        : actions.length === 1
          ? oneLine(actions[0], 40)
          : plural(actions.length, '{count} action', '{count} actions')
  if (resources.length === 0) return what
  const where =
    resources.length === 1
      ? oneLine(resources[0], 40)
      : plural(resources.length, '{count} server or toolset', '{count} servers and toolsets')
  return t('{what} on {where}', { what, where })
}
