import { useQuery, useQueryClient } from '@tanstack/react-query'
import { call } from '@/api/client'
import { listServers } from '@/api/generated/servers'
import { listToolboxes, removeToolbox } from '@/api/generated/toolboxes'
import type { Toolbox } from '@/api/generated/types'
import { invalidate, q } from '@/api/queries'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { ConfirmDialog } from '@/ui/dialog'
import { Notice } from '@/ui/notice'
import { toast } from '@/ui/toast'
import { toolboxQuery } from './public/queries'
import { removalOf } from './removal'

/** Asks whether a toolbox is to be removed, and says before what becomes of its servers. */
export function RemoveToolbox({
  toolbox: listed,
  running,
  onOpenChange,
  onRemoved,
}: {
  toolbox: Toolbox
  /** How much runs there, as a sentence. */
  running: string
  onOpenChange: (open: boolean) => void
  onRemoved: (() => void) | undefined
}) {
  const client = useQueryClient()
  const { name } = listed
  // A list of toolboxes does not say what a drain leaves.
  const toolbox = useQuery({ ...toolboxQuery(name), staleTime: 0 }).data ?? listed
  const servers = useQuery({ ...q(listServers, { query: { toolbox: name, limit: 500 } }), staleTime: 0 })
  const { refusedFor, stops } = removalOf(toolbox, servers.data?.items ?? [])
  return (
    <ConfirmDialog
      open
      onOpenChange={onOpenChange}
      title={t('Remove {name}?', { name })}
      confirm={t('Remove')}
      danger
      typeToConfirm={name}
      disabledReason={refusedFor.length > 0 ? t('Servers must run there: drain it first') : undefined}
      onConfirm={async () => {
        await call(removeToolbox, { path: { name } })
        await invalidate(client, listToolboxes)
        toast.done({ title: t('{name} is removed', { name }) })
        onRemoved?.()
      }}
    >
      <div className="flex flex-col gap-3">
        {refusedFor.length > 0 && (
          <Notice
            tone="warn"
            title={plural(
              refusedFor.length,
              'A server must run there, and has no other place',
              '{count} servers must run there, and have no other place',
            )}
          >
            <Names names={refusedFor} />
            <p>
              {t(
                'Give them another place in their settings, delete them, or drain the toolbox first: then it can be removed, and they stop.',
              )}
            </p>
          </Notice>
        )}
        {stops.length > 0 && (
          <Notice
            tone="warn"
            title={plural(
              stops.length,
              'A server has no other place, and stops',
              '{count} servers have no other place, and stop',
            )}
          >
            <Names names={stops} />
          </Notice>
        )}
        <p>
          {t(
            'Its agent is refused from now on. What may run elsewhere is placed on another toolbox that fits; a server for which there is none waits for one.',
          )}{' '}
          {running}{' '}
          {toolbox.instances > 0 &&
            (toolbox.draining
              ? t('What still moves does not answer until it is placed: better wait until it has moved.')
              : t('They do not answer until they are placed: drain it first to move them before.'))}
        </p>
      </div>
    </ConfirmDialog>
  )
}

function Names({ names }: { names: readonly string[] }) {
  return <p className="id wrap-anywhere">{oneLine(names.join(', '), 1000)}</p>
}
