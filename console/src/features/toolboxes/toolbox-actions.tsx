import { useQueryClient } from '@tanstack/react-query'
import {
  Cable,
  CirclePause,
  CirclePlay,
  KeyRound,
  type LucideIcon,
  ShieldOff,
  Tags,
  Trash2,
} from 'lucide-react'
import { type ReactNode, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { drainToolbox, listToolboxes, resumeToolbox, revokeToolbox } from '@/api/generated/toolboxes'
import type { Toolbox } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { useDenied } from '@/api/session'
import { plural, t } from '@/lib/t'
import { ConfirmDialog } from '@/ui/dialog'
import type { MenuItem } from '@/ui/menu'
import { toast } from '@/ui/toast'
import { AddressDialog, LabelsDialog, RejoinDialog } from './enroll-dialog'
import { toolboxQuery } from './public/queries'
import { RemoveToolbox } from './remove-toolbox'

/** The name of the toolbox that every Toolyard has. */
export const LOCAL = 'local'

type Asked = 'drain' | 'labels' | 'address' | 'rejoin' | 'revoke' | 'remove'

export interface ToolboxAction {
  id: Asked | 'resume'
  label: string
  icon: LucideIcon
  danger: boolean
  disabledReason: string | undefined
  run: () => void
}

/** The actions as lines of a menu. */
export function menuItems(actions: readonly ToolboxAction[]): MenuItem[] {
  return actions.map((action, index) => ({
    label: action.label,
    icon: action.icon,
    danger: action.danger,
    disabledReason: action.disabledReason,
    onSelect: action.run,
    separated: action.danger && actions[index - 1]?.danger === false,
  }))
}

/** What can be done to a toolbox, and the questions that are asked before it: render `dialogs` once. */
export function useToolboxActions(
  toolbox: Toolbox,
  onRemoved?: () => void,
): { actions: ToolboxAction[]; dialogs: ReactNode } {
  const client = useQueryClient()
  const denied = useDenied('toolbox:manage')
  const [asked, setAsked] = useState<Asked>()
  const { name } = toolbox
  const changed = async (after: Toolbox) => {
    client.setQueryData(toolboxQuery(name).queryKey, after)
    await invalidate(client, listToolboxes)
  }
  const resume = async () => {
    try {
      const unsure = t('It is not known whether {name} takes servers again', { name })
      await changed(await callToChange(resumeToolbox, { path: { name } }, unsure))
      toast.done({ title: t('{name} takes servers again', { name }) })
    } catch (error) {
      toast.problem(t('{name} could not be resumed', { name }), error)
    }
  }
  const builtIn = denied ?? (name === LOCAL ? t('It is built in') : undefined)
  const actions: ToolboxAction[] = [
    toolbox.draining
      ? {
          id: 'resume',
          label: t('Resume'),
          icon: CirclePlay,
          danger: false,
          disabledReason: denied,
          run: () => void resume(),
        }
      : {
          id: 'drain',
          label: t('Drain'),
          icon: CirclePause,
          danger: false,
          disabledReason: denied,
          run: () => setAsked('drain'),
        },
    {
      id: 'labels',
      label: t('Change labels'),
      icon: Tags,
      danger: false,
      disabledReason: denied,
      run: () => setAsked('labels'),
    },
    {
      id: 'address',
      label: t('Change the address'),
      icon: Cable,
      danger: false,
      disabledReason: builtIn,
      run: () => setAsked('address'),
    },
    {
      id: 'rejoin',
      label: t('Let it join again'),
      icon: KeyRound,
      danger: false,
      disabledReason: builtIn,
      run: () => setAsked('rejoin'),
    },
    {
      id: 'revoke',
      label: t('Revoke its certificates'),
      icon: ShieldOff,
      danger: true,
      disabledReason: builtIn,
      run: () => setAsked('revoke'),
    },
    {
      id: 'remove',
      label: t('Remove'),
      icon: Trash2,
      danger: true,
      disabledReason: builtIn,
      run: () => setAsked('remove'),
    },
  ]
  const close = (open: boolean) => !open && setAsked(undefined)
  const running =
    toolbox.instances === 0
      ? t('Nothing runs there.')
      : plural(toolbox.instances, '{count} instance runs there.', '{count} instances run there.')
  const dialogs = (
    <>
      {asked === 'drain' && (
        <ConfirmDialog
          open
          onOpenChange={close}
          title={t('Drain {name}?', { name })}
          confirm={t('Drain')}
          onConfirm={async () => {
            const unsure = t('It is not known whether {name} takes nothing new', { name })
            await changed(await callToChange(drainToolbox, { path: { name } }, unsure))
            toast.done({ title: t('{name} takes nothing new', { name }) })
          }}
        >
          {t(
            'Nothing new is placed there until it is resumed. What may run elsewhere is moved, without a failed call.',
          )}{' '}
          {running}
        </ConfirmDialog>
      )}
      {asked === 'labels' && <LabelsDialog toolbox={toolbox} onClose={() => setAsked(undefined)} />}
      {asked === 'address' && <AddressDialog toolbox={toolbox} onClose={() => setAsked(undefined)} />}
      {asked === 'rejoin' && <RejoinDialog name={name} onClose={() => setAsked(undefined)} />}
      {asked === 'revoke' && (
        <ConfirmDialog
          open
          onOpenChange={close}
          title={t('Revoke the certificates of {name}?', { name })}
          confirm={t('Revoke')}
          danger
          onConfirm={async () => {
            const unsure = t('It is not known whether {name} is shut out', { name })
            await changed(await callToChange(revokeToolbox, { path: { name } }, unsure))
            toast.done({ title: t('{name} is shut out', { name }) })
          }}
        >
          {t(
            'For a host that was lost. Its connections are closed within a second, and its unused tokens end. What it runs stays; it may join again with a new token.',
          )}{' '}
          {running}
        </ConfirmDialog>
      )}
      {asked === 'remove' && (
        <RemoveToolbox toolbox={toolbox} running={running} onOpenChange={close} onRemoved={onRemoved} />
      )}
    </>
  )
  return { actions, dialogs }
}
