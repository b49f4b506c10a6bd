/** What can be done to a server, for one and for many: the call, and whether it fits the server's state. */
import { type LucideIcon, Play, RotateCw, Square, Trash2 } from 'lucide-react'
import { callToChange } from '@/api/answer-lost'
import { deleteServer, restartServer, startServer, stopServer } from '@/api/generated/servers'
import type { Action, Server } from '@/api/generated/types'
import { t } from '@/lib/t'
import { isBeingDeleted } from './public/phase'

export type ServerActionId = 'start' | 'stop' | 'restart' | 'delete'

export interface ServerAction {
  id: ServerActionId
  icon: LucideIcon
  /** Such as `Stop`. */
  label: string
  /** What is asked before it is done. */
  question: (name: string) => string
  /** What follows from it, under the question. */
  consequence: string
  /** What was asked for, in a toast. */
  done: (name: string) => string
  failed: (name: string) => string
  /** Right that it needs. */
  needs: Action
  danger: boolean
  run: (name: string) => Promise<Server>
}

/** All of them, in the order in which they are shown. */
export function serverActions(): readonly ServerAction[] {
  return [
    {
      id: 'start',
      icon: Play,
      label: t('Start'),
      question: (name) => t('Start {name}?', { name }),
      consequence: t('It is installed if it has to be, started, and serves as soon as it answers.'),
      done: (name) => t('{name} starts', { name }),
      failed: (name) => t('Could not start {name}', { name }),
      needs: 'server:operate',
      danger: false,
      run: (name) =>
        callToChange(startServer, { path: { name } }, t('It is not known whether {name} starts', { name })),
    },
    {
      id: 'stop',
      icon: Square,
      label: t('Stop'),
      question: (name) => t('Stop {name}?', { name }),
      consequence: t('Calls under way are finished first. Clients get an error until it is started again.'),
      done: (name) => t('{name} stops', { name }),
      failed: (name) => t('Could not stop {name}', { name }),
      needs: 'server:operate',
      danger: true,
      run: (name) =>
        callToChange(stopServer, { path: { name } }, t('It is not known whether {name} stops', { name })),
    },
    {
      id: 'restart',
      icon: RotateCw,
      label: t('Restart'),
      question: (name) => t('Restart {name}?', { name }),
      consequence: t('A new instance of the same revision takes over; the old one ends after its calls.'),
      done: (name) => t('{name} restarts', { name }),
      failed: (name) => t('Could not restart {name}', { name }),
      needs: 'server:operate',
      danger: false,
      run: (name) =>
        callToChange(
          restartServer,
          { path: { name } },
          t('It is not known whether {name} restarts', { name }),
        ),
    },
    {
      id: 'delete',
      icon: Trash2,
      label: t('Delete'),
      question: (name) => t('Delete {name}?', { name }),
      consequence: t(
        'Its processes are ended, and its revisions and logs are gone. Toolsets lose its tools. This cannot be undone.',
      ),
      done: (name) => t('{name} is being deleted', { name }),
      failed: (name) => t('Could not delete {name}', { name }),
      needs: 'server:delete',
      danger: true,
      run: (name) =>
        callToChange(
          deleteServer,
          { path: { name } },
          t('It is not known whether {name} is being deleted', { name }),
        ),
    },
  ]
}

/** The action of this id. */
export function serverAction(id: ServerActionId): ServerAction {
  const found = serverActions().find((action) => action.id === id)
  if (found === undefined) throw new Error(`there is no action ${id}`)
  return found
}

/** Why an action does not fit the server's state; `undefined` when it does. */
export function misfit(
  id: ServerActionId,
  server: Pick<Server, 'enabled' | 'phase' | 'message' | 'toolbox_removed_at'>,
): string | undefined {
  if (isBeingDeleted(server)) return t('It is being deleted')
  if (id === 'start' && server.enabled) return t('It is already started')
  if (id === 'stop' && !server.enabled) return t('It is already stopped')
  if (id === 'restart' && !server.enabled) return t('It is stopped')
  if ((id === 'start' || id === 'restart') && server.toolbox_removed_at != null)
    return t('The toolbox where it must run was removed: move it to another first')
  return undefined
}
