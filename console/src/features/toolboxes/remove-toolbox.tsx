import { useQuery, useQueryClient } from '@tanstack/react-query'
import { callToChange } from '@/api/answer-lost'
import { listServers } from '@/api/generated/servers'
import { listToolboxes, removeToolbox } from '@/api/generated/toolboxes'
import type { Toolbox } from '@/api/generated/types'
import { invalidate, q } from '@/api/queries'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { ConfirmDialog } from '@/ui/dialog'
import { ErrorState } from '@/ui/error-state'
import { Notice } from '@/ui/notice'
import { toast } from '@/ui/toast'
import { toolboxesQuery, toolboxQuery } from './public/queries'
import { type Removal, removalOf } from './removal'

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
  // What is listed may be from before a drain.
  const current = useQuery({ ...toolboxQuery(name), staleTime: 0 })
  const toolbox = current.data ?? listed
  const servers = useQuery({
    ...q(listServers, { query: { toolbox: name, brief: true, limit: 500 } }),
    staleTime: 0,
  })
  const toolboxes = useQuery({ ...toolboxesQuery, staleTime: 0 })
  const reads = [current, servers, toolboxes]
  const failed = reads.find((read) => read.isLoadingError)
  const removal =
    current.data === undefined || servers.data === undefined || toolboxes.data === undefined
      ? undefined
      : removalOf(current.data, servers.data.items, toolboxes.data.items)
  return (
    <ConfirmDialog
      open
      onOpenChange={onOpenChange}
      title={t('Remove {name}?', { name })}
      confirm={t('Remove')}
      danger
      typeToConfirm={name}
      disabledReason={
        removal === undefined
          ? t('What becomes of its servers is not known yet')
          : removal.refused
            ? t('Servers must run there: drain it first')
            : undefined
      }
      onConfirm={async () => {
        await callToChange(
          removeToolbox,
          { path: { name } },
          t('It is not known whether {name} is removed', { name }),
        )
        await invalidate(client, listToolboxes)
        toast.done({ title: t('{name} is removed', { name }) })
        onRemoved?.()
      }}
    >
      <div className="flex flex-col gap-3">
        <p>
          {t(
            'Its agent is refused from now on, no call reaches what runs there, and that ends as soon as the agent hears of it.',
          )}{' '}
          {running}
        </p>
        {removal !== undefined ? (
          <Consequences removal={removal} draining={toolbox.draining} />
        ) : failed !== undefined ? (
          <ErrorState
            error={failed.error}
            onRetry={() => {
              for (const read of reads) if (read.isLoadingError) void read.refetch()
            }}
            retrying={reads.some((read) => read.isFetching)}
          />
        ) : (
          <p className="text-muted">{t('Looking at what becomes of its servers…')}</p>
        )}
      </div>
    </ConfirmDialog>
  )
}

function Consequences({ removal, draining }: { removal: Removal; draining: boolean }) {
  const { certain, moves, labelled, serves, waits } = removal
  return (
    <>
      <Bound removal={removal} />
      {moves.length > 0 && (
        <div>
          <p>
            {certain
              ? plural(
                  moves.length,
                  'This server is placed on another toolbox that can run it:',
                  'These {count} servers are placed on other toolboxes that can run them:',
                )
              : labelled
                ? plural(
                    moves.length,
                    'This server is placed on another toolbox with its labels, if that can run it:',
                    'These {count} servers are placed on other toolboxes, those with labels on ones that have them, if those can run them:',
                  )
                : plural(
                    moves.length,
                    'This server is placed on another toolbox, if that can run it:',
                    'These {count} servers are placed on other toolboxes, if those can run them:',
                  )}
          </p>
          <Names names={moves} />
          <p className="text-muted">
            {draining
              ? t('Calls fail until that is done: better wait until what still moves has moved.')
              : t('Calls fail until that is done. Drain the toolbox first, and none fails.')}
          </p>
        </div>
      )}
      {serves.length > 0 && (
        <div>
          <p>
            {plural(
              serves.length,
              'This server serves on with its other instances, and has fewer until another toolbox takes one:',
              'These {count} servers serve on with their other instances, and have fewer until another toolbox takes one:',
            )}
          </p>
          <Names names={serves} />
        </div>
      )}
      {waits.length > 0 && (
        <Notice
          tone="warn"
          title={plural(
            waits.length,
            'No other toolbox takes this server now',
            'No other toolbox takes these {count} servers now',
          )}
        >
          <Names names={waits} />
          <p>{t('Calls fail until a toolbox that can run it is online.')}</p>
        </Notice>
      )}
    </>
  )
}

/** What becomes of the servers that must run there. */
function Bound({ removal: { refused, bound, failing } }: { removal: Removal }) {
  if (bound.length === 0) return null
  return (
    <Notice
      tone="warn"
      title={plural(
        bound.length,
        'This server must run there, and nowhere else',
        'These {count} servers must run there, and nowhere else',
      )}
    >
      <Names names={bound} />
      <p>
        {refused
          ? plural(
              bound.length,
              'Give it another place in its settings, or delete it. Or drain the toolbox first: then that can be removed, and what must run there runs nowhere until it is moved.',
              'Give them another place in their settings, or delete them. Or drain the toolbox first: then that can be removed, and what must run there runs nowhere until it is moved.',
            )
          : boundText(bound.length, failing)}
      </p>
    </Notice>
  )
}

/** What becomes of servers that must run there; only those that are meant to run fail. */
function boundText(count: number, failing: number): string {
  const fate =
    failing === count
      ? plural(
          count,
          'It fails and runs nowhere until you move it, in its settings, or delete it.',
          'They fail and run nowhere until you move them, in their settings, or delete them.',
        )
      : failing === 0
        ? plural(
            count,
            'It is stopped, and cannot be started until you move it, in its settings.',
            'They are stopped, and cannot be started until you move them, in their settings.',
          )
        : plural(
            failing,
            '{count} of them fails, the others are stopped; none runs until you move it, in its settings.',
            '{count} of them fail, the others are stopped; none runs until you move it, in its settings.',
          )
  const volumes = plural(
    count,
    'What is in its volumes stays on the host.',
    'What is in their volumes stays on the host.',
  )
  return `${fate} ${volumes}`
}

function Names({ names }: { names: readonly string[] }) {
  return <p className="id wrap-anywhere">{oneLine(names.join(', '), 1000)}</p>
}
