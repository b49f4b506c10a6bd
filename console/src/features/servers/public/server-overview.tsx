import { useInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import type { Exit, Instance, Limits, Server } from '@/api/generated/types'
import { useForbidden } from '@/api/session'
import { entryParams } from '@/features/catalog/public/entry-parts'
import { cx } from '@/lib/cx'
import { formatBytes, formatDuration, formatNumber, formatPercent, formatTime } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { CopyButton } from '@/ui/copy-button'
import { EmptyState } from '@/ui/empty-state'
import { KeyValueList } from '@/ui/key-value-list'
import { ButtonLink, Link } from '@/ui/link'
import { Elapsed, RelativeTime } from '@/ui/relative-time'
import { TickedText } from '@/ui/ticked-text'
import { isHeard, mainInstance, placeText } from '../row'
import { valueText } from '../spec-text'
import { LogView, shortId } from './log-view'
import { logOfRollout, logTitle, serves } from './logged'
import { isBeingDeleted, PhaseStatus, reasonText, servesNowhere } from './phase'
import { revisionsQuery, serverQuery } from './queries'
import { onTrial, RolloutActions, RolloutTimeline } from './rollout-timeline'

/** How it is: the rollout, what serves, where clients connect, and what it is. */
export function ServerOverview({ name }: { name: string }) {
  const { data: server } = useSuspenseQuery(serverQuery(name))
  // Only for the limits and the address of a remote: the page does not wait for them.
  const { data: revisions } = useInfiniteQuery(revisionsQuery(name))
  const specOf = (revision: number) =>
    revisions?.pages.flatMap((page) => page.items).find((one) => one.number === revision)?.spec
  const runtime = specOf(server.revision)?.runtime
  const address = runtime?.kind === 'remote' ? valueText(runtime.url) : undefined
  const { rollout } = server
  const unfinished = rollout != null && rollout.state !== 'done' && rollout.state !== 'cancelled'
  return (
    <div className="grid items-start gap-4 xl:grid-cols-[minmax(0,2fr)_minmax(0,1fr)]">
      <div className="flex min-w-0 flex-col gap-4">
        {unfinished && rollout != null && <RolloutCard server={server} />}
        <Card title={t('Instances')} flush>
          {server.instances.length === 0 ? (
            <NoInstance server={server} />
          ) : (
            <ul>
              {server.instances.map((instance) => (
                <InstanceItem
                  key={instance.id}
                  instance={instance}
                  limits={specOf(instance.revision)?.limits}
                  serves={serves(server, instance)}
                  canary={isCanary(server, instance)}
                />
              ))}
            </ul>
          )}
        </Card>
        {rollout != null && !unfinished && (
          <Card title={t('Last rollout')}>
            <RolloutTimeline rollout={rollout} remote={server.kind === 'remote'} />
          </Card>
        )}
      </div>
      <div className="flex min-w-0 flex-col gap-4">
        <Endpoint server={server} />
        <Facts server={server} address={address} />
      </div>
    </div>
  )
}

/** Why there is no instance. */
function NoInstance({ server }: { server: Server }) {
  if (isBeingDeleted(server)) return <EmptyState title={t('Nothing of it runs any more')} />
  if (server.toolbox_removed_at != null)
    return (
      <EmptyState title={t('Its toolbox was removed')}>
        {server.enabled
          ? t('It runs nowhere until it is moved to another.')
          : t('It is stopped, and cannot be started until it is moved to another.')}
      </EmptyState>
    )
  if (!server.enabled)
    return <EmptyState title={t('It is stopped')}>{t('Start it, and an instance is made.')}</EmptyState>
  if (server.kind === 'remote')
    return <EmptyState title={t('It runs elsewhere')}>{remoteText(server)}</EmptyState>
  if (server.rollout?.state === 'failed')
    return (
      <EmptyState title={t('No instance')}>
        {server.next_attempt_at == null
          ? t('Its rollout failed. One is made when it is tried again: correct its settings, or restart it.')
          : t('Its rollout failed, and is tried again.')}
      </EmptyState>
    )
  if (servesNowhere(server))
    return (
      <EmptyState title={t('Its instance is gone')}>
        {t('Another is made as soon as a toolbox can take it.')}
      </EmptyState>
    )
  return (
    <EmptyState title={t('No instance yet')}>
      {server.reason === 'awaiting_toolbox' || server.reason === 'no_capacity'
        ? t('One is made as soon as a toolbox takes it.')
        : t('It is being prepared.')}
    </EmptyState>
  )
}

/** What becomes of calls to a remote server, of which there is never an instance here. */
export function remoteText({ phase, rollout }: Pick<Server, 'phase' | 'rollout'>): string {
  if (phase === 'ready' || phase === 'degraded')
    return t('There is no instance of it here: calls go to its address.')
  return rollout?.state === 'failed'
    ? t('Calls go to its address once that answers: correct its settings, or restart it.')
    : t('Calls go to its address as soon as that answers.')
}

/** Whether an instance takes the calls of a canary. */
function isCanary({ rollout }: Server, instance: Instance): boolean {
  return rollout != null && onTrial(rollout) && instance.revision === rollout.to_revision
}

function RolloutCard({ server }: { server: Server }) {
  const { name, rollout } = server
  const denied = useForbidden('server:logs')
  const log = denied === undefined ? logOfRollout(server) : undefined
  if (rollout == null) return null
  return (
    <Card title={t('Rollout')} actions={<RolloutActions rollout={rollout} />}>
      <div className={cx('grid gap-6', log !== undefined && 'lg:grid-cols-2')}>
        <RolloutTimeline
          rollout={rollout}
          remote={server.kind === 'remote'}
          explain={rollout.state === 'rolled_back'}
        />
        {log !== undefined && (
          <div className="min-w-0">
            <div className="mb-2 flex flex-wrap items-baseline justify-between gap-x-4">
              <h3 className="font-medium">{logTitle(rollout, log)}</h3>
              <Link to="/servers/$name/logs" params={{ name }} search={log}>
                {t('All logs')}
              </Link>
            </div>
            <LogView server={server} choice={log} compact className="h-64" />
          </div>
        )}
      </div>
    </Card>
  )
}

function Endpoint({ server }: { server: Server }) {
  const url = `${window.location.origin}${server.mcp_path}`
  return (
    <Card
      title={t('Where clients connect')}
      actions={
        <ButtonLink to="/connect/$name" params={{ name: server.name }} size="small">
          {t('Connect a client')}
        </ButtonLink>
      }
    >
      <CodeBlock code={url} label={t('MCP address')} wrap />
      <p className="mt-2 text-sm text-muted">{t('Streamable HTTP, with an API key as bearer token.')}</p>
    </Card>
  )
}

function Facts({ server, address }: { server: Server; address: string | undefined }) {
  const mcp = mainInstance(server)?.mcp
  return (
    <Card title={t('What it is')}>
      <KeyValueList
        items={[
          [
            t('Kind'),
            <Badge key="kind" mono>
              {server.kind}
            </Badge>,
          ],
          [
            t('Entry'),
            server.entry == null ? undefined : (
              <Link
                key="entry"
                to="/marketplace/$namespace/$name"
                params={entryParams(server.entry.name)}
                className="id"
              >
                {oneLine(server.entry.name)}
              </Link>
            ),
          ],
          [
            t('Version'),
            server.entry == null ? undefined : (
              <span key="version" className="id">
                {oneLine(server.entry.version)}
              </span>
            ),
          ],
          [
            t('Revision'),
            <Link key="revision" to="/servers/$name/revisions" params={{ name: server.name }}>
              {server.revision}
            </Link>,
          ],
          [
            t('Address'),
            address === undefined ? undefined : (
              <code key="address" className="id wrap-anywhere">
                {oneLine(address, 500)}
              </code>
            ),
          ],
          [
            t('Toolbox'),
            server.kind === 'remote' ? undefined : (
              <span
                key="toolbox"
                className={cx(
                  'wrap-anywhere',
                  server.toolbox_removed_at != null ? 'text-bad' : server.toolbox != null && 'id',
                )}
              >
                {placeText(server)}
              </span>
            ),
          ],
          [t('Instances'), server.replicas > 1 ? formatNumber(server.replicas) : undefined],
          [
            t('Changes at'),
            server.update_window == null ? undefined : t('{time} UTC', { time: server.update_window }),
          ],
          [
            t('Restarts at'),
            server.restart_at == null ? undefined : t('{time} UTC', { time: server.restart_at }),
          ],
          [
            t('Says it is'),
            mcp == null ? undefined : oneLine(`${mcp.server_name} ${mcp.server_version}`, 120),
          ],
          [
            t('Protocol'),
            mcp == null
              ? undefined
              : `${oneLine(mcp.protocol_version, 20)} (${mcp.era === 'modern' ? t('stateless') : t('with sessions')})`,
          ],
          [t('Tools'), mcp == null ? undefined : formatNumber(mcp.tools)],
          [t('Created'), <RelativeTime key="created" at={server.created_at} />],
          [t('Changed'), <RelativeTime key="changed" at={server.updated_at} />],
        ]}
      />
    </Card>
  )
}

function InstanceItem({
  instance,
  limits,
  serves,
  canary,
}: {
  instance: Instance
  limits: Limits | undefined
  serves: boolean
  canary: boolean
}) {
  // What was last heard of an instance that nobody hears now is no news of it.
  const usage = isHeard(instance) ? instance.usage : undefined
  return (
    <li className="flex flex-col gap-3 border-b px-pad py-3 last:border-b-0">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <PhaseStatus phase={instance.phase} />
        {serves && <Badge tone="good">{t('serves')}</Badge>}
        {canary && <Badge tone="accent">{t('canary')}</Badge>}
        <span className="text-muted">
          {instance.message ? (
            <TickedText text={oneLine(instance.message, 2000)} />
          ) : (
            reasonText(instance.reason)
          )}
          {instance.next_attempt_at != null && (
            <>
              {' · '}
              {t('next attempt')} <RelativeTime at={instance.next_attempt_at} />
            </>
          )}
        </span>
        <span className="ml-auto inline-flex items-center gap-1 text-sm text-faint">
          <span className="id" title={instance.id}>
            {shortId(instance.id)}
          </span>
          <CopyButton text={instance.id} label={t('Copy the id of the instance')} />
        </span>
      </div>
      <dl className="grid grid-cols-[repeat(auto-fill,minmax(8.5rem,1fr))] gap-x-6 gap-y-2">
        <Fact name={t('Ready for')}>
          {instance.ready_since == null || (instance.phase !== 'ready' && instance.phase !== 'degraded') ? (
            '–'
          ) : (
            <Elapsed since={instance.ready_since} />
          )}
        </Fact>
        <Fact name={t('Memory')}>
          {usage == null ? '–' : <Memory bytes={usage.memory_bytes} limit={limits?.memory_bytes} />}
        </Fact>
        <Fact name={t('Processor time')}>{usage == null ? '–' : formatDuration(usage.cpu_ms)}</Fact>
        <Fact name={t('Processes')}>{usage == null ? '–' : formatNumber(usage.processes)}</Fact>
        <Fact name={t('Restarts')}>{formatNumber(instance.restarts)}</Fact>
        {instance.container_id == null ? (
          <Fact name={t('Process id')}>
            {instance.pid == null ? '–' : <span className="id">{instance.pid}</span>}
          </Fact>
        ) : (
          <Fact name={t('Container')}>
            <span className="id" title={oneLine(instance.container_id, 128)}>
              {oneLine(instance.container_id, 12)}
            </span>
          </Fact>
        )}
        <Fact name={t('Last answer')}>
          {instance.last_success_at == null ? '–' : <RelativeTime at={instance.last_success_at} />}
        </Fact>
        {instance.failures !== undefined && instance.failures > 0 && (
          <Fact name={t('Failed probes')}>
            <span className="text-warn">{formatNumber(instance.failures)}</span>
          </Fact>
        )}
        {instance.copies !== undefined && instance.copies > 0 && (
          <Fact name={t('Copies')}>{formatNumber(instance.copies)}</Fact>
        )}
        <Fact name={t('Revision')}>{formatNumber(instance.revision)}</Fact>
        <Fact name={t('Toolbox')}>
          {instance.toolbox == null ? '–' : <span className="id">{instance.toolbox}</span>}
        </Fact>
      </dl>
      {instance.exit != null && <LastExit exit={instance.exit} />}
    </li>
  )
}

/** Memory, and how much of its limit that is; coloured and said when it comes near. */
function Memory({ bytes, limit }: { bytes: number; limit: number | undefined }) {
  if (limit === undefined || limit <= 0) return formatBytes(bytes)
  const share = bytes / limit
  const text = t('{used} of {limit}', { used: formatBytes(bytes), limit: formatBytes(limit) })
  return (
    <>
      <span title={formatPercent(share)}>{text}</span>
      {share >= 0.85 && <span className="block text-sm text-warn">{t('near its limit')}</span>}
    </>
  )
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-sm text-muted">{name}</dt>
      <dd className="tabular truncate">{children}</dd>
    </div>
  )
}

/** How its process ended the last time, with the end of what it wrote to standard error. */
function LastExit({ exit }: { exit: Exit }) {
  const tail = plainText(exit.stderr_tail, 20_000)
  const lines = tail === '' ? 0 : tail.trimEnd().split('\n').length
  return (
    <div className="rounded-md border border-warn/30 bg-warn-soft px-3 py-2">
      <p>
        {exitText(exit)} <span className="text-muted">(</span>
        <span className="text-muted" title={formatTime(exit.at)}>
          <RelativeTime at={exit.at} />
        </span>
        <span className="text-muted">)</span>
      </p>
      {lines > 0 && (
        <details className="mt-1" open={lines <= 12}>
          <summary className="w-fit rounded text-sm text-muted">
            {plural(
              lines,
              'The last line it wrote to standard error',
              'The last {count} lines it wrote to standard error',
            )}
          </summary>
          <CodeBlock code={tail} label={t('End of standard error')} wrap className="mt-2" />
        </details>
      )}
    </div>
  )
}

/** How a process ended, in words. */
export function exitText(exit: Exit): string {
  if (exit.signal != null) {
    return t('Its process was ended by signal {signal}', {
      signal: SIGNALS[exit.signal] === undefined ? exit.signal : `${exit.signal} (${SIGNALS[exit.signal]})`,
    })
  }
  if (exit.code == null) return t('Its process ended')
  if (exit.code === 0) return t('Its process ended by itself, with code 0')
  return t('Its process ended with code {code}', { code: exit.code })
}

/** The signals that end servers in practice, as on Linux. */
const SIGNALS: Readonly<Record<number, string>> = {
  1: 'HUP',
  2: 'INT',
  3: 'QUIT',
  4: 'ILL',
  6: 'ABRT',
  7: 'BUS',
  8: 'FPE',
  9: 'KILL',
  11: 'SEGV',
  13: 'PIPE',
  15: 'TERM',
}
