import type { Reason, Toolbox, ToolboxState } from '@/api/generated/types'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Status, type StatusKind } from '@/ui/status'

const KIND: Record<ToolboxState, StatusKind> = {
  enrolling: 'waiting',
  online: 'good',
  unreachable: 'bad',
  draining: 'off',
  removed: 'off',
}

/** A toolbox's state in words. */
export function toolboxStateText(state: ToolboxState): string {
  const texts: Record<ToolboxState, string> = {
    enrolling: t('Enrolling'),
    online: t('Online'),
    unreachable: t('Unreachable'),
    draining: t('Draining'),
    removed: t('Removed'),
  }
  return texts[state] ?? state
}

/** The state of a toolbox. */
export function ToolboxStatus({ state }: { state: ToolboxState }) {
  // A newer server may know a state that this console does not.
  return <Status kind={KIND[state] ?? 'unknown'}>{toolboxStateText(state)}</Status>
}

/**
 * Whether it counts as online and its connection is gone: its agent may have died a moment ago, and counts as unreachable
 * only after it was silent for a while.
 */
export function isCutOff({
  state,
  link,
}: Pick<Toolbox, 'state'> & { link: Pick<Toolbox['link'], 'connected'> }): boolean {
  return state === 'online' && !link.connected
}

/** Why a toolbox is in its state: in the server's words, else in ours. */
export function toolboxWhy(
  toolbox: Pick<Toolbox, 'message' | 'reason' | 'state'> & { link: Pick<Toolbox['link'], 'connected'> },
): string {
  // The server says when it was last heard, to the millisecond; that stands beside it.
  if (toolbox.reason === 'toolbox_unreachable') return t('its agent has been silent for too long')
  const said = oneLine(toolbox.message)
  if (said !== '') return said
  if (isCutOff(toolbox)) return t('its agent has no connection now')
  if (toolbox.state === 'online') return t('its agent answers')
  const texts: Partial<Record<Reason, string>> = {
    requested: t('somebody asked for it'),
    engine_unavailable: t('what runs servers there does not work'),
  }
  return texts[toolbox.reason] ?? toolbox.reason.replaceAll('_', ' ')
}

/** Its labels as people type them: `zone=a, gpu=yes`. */
export function labelsText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => oneLine(value === '' ? key : `${key}=${value}`, 120))
    .join(', ')
}
