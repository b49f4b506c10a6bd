import { useMutation, useQuery, useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { FlaskConical, Plug, RotateCw, Server as ServerIcon, Settings2 } from 'lucide-react'
import { useEffect } from 'react'
import { callToChange } from '@/api/answer-lost'
import { getRollout, restartServer } from '@/api/generated/servers'
import type { Server } from '@/api/generated/types'
import { invalidate, q } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { LogView } from '@/features/servers/public/log-view'
import { logOfRollout } from '@/features/servers/public/logged'
import { PhaseStatus } from '@/features/servers/public/phase'
import { serverQuery } from '@/features/servers/public/queries'
import { RolloutActions, RolloutTimeline } from '@/features/servers/public/rollout-timeline'
import { focusHeading } from '@/lib/focus-after'
import { plural, t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CopyButton } from '@/ui/copy-button'
import { EmptyState } from '@/ui/empty-state'
import { ButtonLink, Link } from '@/ui/link'
import { LiveRegion } from '@/ui/live-region'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Panel } from '@/ui/panel'
import { toast } from '@/ui/toast'

/** While nothing is told by events, it is looked at this often. */
const LOOK_MS = 4000

/** The rollout of a server that was just made, with its log beside it, and what comes next. */
export function DeployProgress({ name }: { name: string }) {
  const session = useSession()
  const { data: server } = useSuspenseQuery({
    ...serverQuery(name),
    refetchInterval: ({ state }) => (state.data?.rollout?.state === 'progressing' ? LOOK_MS : false),
  })
  const rollout = useQuery({
    ...q(getRollout, { path: { name } }),
    refetchInterval: ({ state }) => (state.data?.state === 'progressing' ? LOOK_MS : false),
  })
  const state = rollout.data?.state
  const log = logOfRollout(server)
  // The form that was sent is gone, with what had the focus.
  useEffect(focusHeading, [])
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/servers">{t('Servers')}</Link>
          </Breadcrumbs>
        }
        title={state === 'done' ? t('Deployed {name}', { name }) : t('Deploying {name}', { name })}
        meta={<PhaseStatus phase={server.phase} />}
      />
      <LiveRegion>
        {state === 'done'
          ? t('{name} is ready', { name })
          : state === 'failed'
            ? t('{name} failed', { name })
            : ''}
      </LiveRegion>
      {state === 'done' && <Ready server={server} />}
      <div className="grid items-start gap-4 lg:grid-cols-[minmax(20rem,2fr)_minmax(0,3fr)]">
        <Panel
          title={t('Rollout')}
          query={rollout}
          actions={rollout.data && <RolloutActions rollout={rollout.data} />}
        >
          {(data) => (
            <>
              <RolloutTimeline rollout={data} remote={server.kind === 'remote'} />
              {(data.state === 'failed' || data.state === 'cancelled') && (
                <div className="mt-4 flex flex-wrap gap-2">
                  <TryAgain name={name} />
                  <ButtonLink to="/servers/$name/settings" params={{ name }} icon={Settings2}>
                    {t('Change the settings')}
                  </ButtonLink>
                  <ButtonLink to="/servers/$name" params={{ name }} icon={ServerIcon}>
                    {t('Open the server')}
                  </ButtonLink>
                </div>
              )}
            </>
          )}
        </Panel>
        <Card title={t('Log')} className={state === 'progressing' ? 'min-h-[25rem]' : undefined}>
          {!may(session, 'server:logs') ? (
            <EmptyState title={t('You may not read logs')} />
          ) : server.kind === 'remote' ? (
            <p className="text-muted">
              {t(
                'It runs elsewhere, and its log is there. What it answered stands in the steps of the rollout.',
              )}
            </p>
          ) : log === undefined ? (
            <p className="text-muted">{t('The log appears with the first instance.')}</p>
          ) : (
            <LogView server={server} choice={log} compact className="h-72" />
          )}
        </Card>
      </div>
    </>
  )
}

/** A new rollout of the same revision. */
function TryAgain({ name }: { name: string }) {
  const queryClient = useQueryClient()
  const denied = useDenied('server:operate')
  const again = useMutation({
    mutationFn: () =>
      callToChange(
        restartServer,
        { path: { name } },
        t('It is not known whether {name} is tried again', { name }),
      ),
    onSuccess: async (server) => {
      queryClient.setQueryData(serverQuery(name).queryKey, server)
      await invalidate(queryClient, getRollout, { path: { name } })
    },
    onError: (error) => toast.problem(t('{name} could not be tried again', { name }), error),
  })
  return (
    <Button
      variant="primary"
      icon={RotateCw}
      busy={again.isPending}
      disabledReason={denied}
      onClick={() => again.mutate()}
    >
      {t('Try again')}
    </Button>
  )
}

function Ready({ server }: { server: Server }) {
  const tools = server.instances.find((one) => one.mcp)?.mcp?.tools
  const address = new URL(server.mcp_path, window.location.origin).href
  return (
    <div className="mb-4">
      <Card
        title={t('It answers')}
        description={
          tools === undefined ? undefined : plural(tools, 'It has {count} tool.', 'It has {count} tools.')
        }
      >
        <div className="flex flex-wrap items-center gap-2">
          <ButtonLink variant="primary" to="/servers/$name" params={{ name: server.name }}>
            {t('Open the server')}
          </ButtonLink>
          <ButtonLink to="/playground/$name" params={{ name: server.name }} icon={FlaskConical}>
            {t('Try it in the playground')}
          </ButtonLink>
          <ButtonLink to="/connect/$name" params={{ name: server.name }} icon={Plug}>
            {t('Connect a client')}
          </ButtonLink>
          <span className="ml-auto inline-flex min-w-0 items-center gap-1">
            <code className="id min-w-0 truncate text-muted">{address}</code>
            <CopyButton text={address} label={t('Copy the address')} />
          </span>
        </div>
      </Card>
    </div>
  )
}
