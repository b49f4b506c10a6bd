import { useSuspenseQuery } from '@tanstack/react-query'
import { Ellipsis } from 'lucide-react'
import type { Capacity, Drain, Enforcement, OfferFailure, Toolbox } from '@/api/generated/types'
import { ErrorList, HealthFacts } from '@/features/servers/public/health'
import { formatBytes, formatDate, formatNumber, readableTimes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { capital } from '@/ui/error-state'
import { KeyValueList } from '@/ui/key-value-list'
import { Link } from '@/ui/link'
import { Menu } from '@/ui/menu'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Meter } from '@/ui/progress'
import { RelativeTime } from '@/ui/relative-time'
import { Status } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { LOCAL, menuItems, useToolboxActions } from '../toolbox-actions'
import { toolboxQuery } from './queries'
import { isCutOff, ToolboxStatus, toolboxWhy } from './toolbox-state'

/** One toolbox: how it is, what it can run, and what it enforces. */
export function ToolboxPage({ name, onRemoved }: { name: string; onRemoved: () => void }) {
  // When it was last heard, and how calls to it fare, change without an event.
  const { data: toolbox } = useSuspenseQuery({ ...toolboxQuery(name), refetchInterval: 10_000 })
  const { actions, dialogs } = useToolboxActions(toolbox, onRemoved)
  const { report } = toolbox
  const heard = report.platform !== ''
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/toolboxes">{t('Toolboxes')}</Link>
          </Breadcrumbs>
        }
        title={<span className="id text-[1.1em]">{toolbox.name}</span>}
        meta={<ToolboxStatus state={toolbox.state} />}
        actions={
          <>
            {actions.slice(0, 1).map((action) => (
              <Button
                key={action.id}
                icon={action.icon}
                disabledReason={action.disabledReason}
                onClick={action.run}
              >
                {action.label}
              </Button>
            ))}
            <Menu
              trigger={<IconButton icon={Ellipsis} label={t('More actions')} variant="secondary" />}
              items={menuItems(actions.slice(1))}
            />
          </>
        }
      >
        <TickedText text={capital(toolboxWhy(toolbox))} /> ·{' '}
        {isCutOff(toolbox) && toolbox.last_seen_at != null ? (
          <>
            {t('it was last heard')} <RelativeTime at={toolbox.last_seen_at} />
          </>
        ) : (
          <RelativeTime at={toolbox.since} />
        )}
      </PageHeader>
      {dialogs}
      {toolbox.state === 'unreachable' && (
        <div className="mb-4">
          <Notice tone="bad" title={t('Toolyard does not hear its agent')}>
            {t(
              'Its servers may run on, but cannot be called. On the host, “toolyard dtma doctor” says what is wrong.',
            )}
          </Notice>
        </div>
      )}
      {toolbox.draining && toolbox.drain != null && <Draining drain={toolbox.drain} />}
      <div className="grid items-start gap-4 lg:grid-cols-2">
        <div className="flex min-w-0 flex-col gap-4">
          <Card title={t('Toolbox')}>
            <KeyValueList
              items={[
                [
                  t('Instances'),
                  toolbox.instances === 0 ? (
                    formatNumber(0)
                  ) : (
                    <Link key="instances" to="/servers" search={{ toolbox: toolbox.name }}>
                      {plural(toolbox.instances, '{count} instance', '{count} instances')}
                    </Link>
                  ),
                ],
                [t('Engine'), oneLine(toolbox.engine, 60) || undefined],
                [t('Platform'), oneLine(report.platform, 60) || undefined],
                [t('Agent'), toolbox.version == null ? undefined : oneLine(toolbox.version, 60)],
                [
                  t('Last seen'),
                  toolbox.last_seen_at == null ? (
                    t('Never')
                  ) : (
                    <RelativeTime key="seen" at={toolbox.last_seen_at} />
                  ),
                ],
                [
                  t('Listens at'),
                  toolbox.address == null ? undefined : (
                    <code key="address" className="id">
                      {oneLine(toolbox.address, 300)}
                    </code>
                  ),
                ],
                [
                  t('Not reached'),
                  toolbox.offer_failure == null ? undefined : (
                    <NotReached key="offer" failure={toolbox.offer_failure} />
                  ),
                ],
                [t('Calls'), <Calls key="calls" toolbox={toolbox} />],
                [
                  t('Certificate'),
                  toolbox.certificate_expires_at == null
                    ? toolbox.name === LOCAL
                      ? undefined
                      : t('none; it has to join')
                    : t('good until {date}; its agent renews it', {
                        date: formatDate(toolbox.certificate_expires_at),
                      }),
                ],
                [
                  t('Labels'),
                  Object.keys(toolbox.labels).length === 0 ? (
                    t('None')
                  ) : (
                    <span key="labels" className="flex flex-wrap gap-1.5">
                      {Object.entries(toolbox.labels).map(([key, value]) => (
                        <Badge key={key} mono>
                          {oneLine(`${key}=${value}`, 120)}
                        </Badge>
                      ))}
                    </span>
                  ),
                ],
                [
                  t('Runtimes'),
                  Object.keys(report.runtimes).length === 0 ? (
                    heard ? (
                      t('None found')
                    ) : undefined
                  ) : (
                    <ul key="runtimes">
                      {Object.entries(report.runtimes).map(([runtime, version]) => (
                        <li key={runtime}>
                          {oneLine(runtime, 40)} <span className="id text-muted">{oneLine(version, 60)}</span>
                        </li>
                      ))}
                    </ul>
                  ),
                ],
                [
                  t('Id'),
                  <code key="id" className="id">
                    {toolbox.id}
                  </code>,
                ],
              ]}
            />
          </Card>
          {toolbox.health != null && (
            <Card title={t('Health')}>
              <HealthFacts health={toolbox.health} />
            </Card>
          )}
          {toolbox.health != null && toolbox.health.recent_errors.length > 0 && (
            <Card title={t('Went wrong in the last day')} flush>
              <ErrorList errors={toolbox.health.recent_errors} />
            </Card>
          )}
        </div>
        <div className="flex min-w-0 flex-col gap-4">
          {report.capacity != null && <Room capacity={report.capacity} />}
          <Card
            title={t('What it enforces')}
            description={t('Protections of this host against the servers that run on it.')}
            flush
          >
            {heard ? (
              <ul>
                {Object.entries(report.enforcement).map(([protection, enforcement]) => (
                  <Protection key={protection} protection={protection} enforcement={enforcement} />
                ))}
              </ul>
            ) : (
              <p className="p-pad text-muted">{t('Its agent tells when it joins.')}</p>
            )}
          </Card>
        </div>
      </div>
    </>
  )
}

/** What its host has, and what is left of it. */
function Room({ capacity }: { capacity: Capacity }) {
  const { memory_bytes: memory, memory_available_bytes: available } = capacity
  return (
    <Card title={t('Capacity')} actions={<RelativeTime at={capacity.at} className="text-sm text-faint" />}>
      <div className="flex flex-col gap-4">
        <Meter
          label={t('Memory in use')}
          value={memory - available}
          max={memory}
          text={t('{used} of {all}', { used: formatBytes(memory - available), all: formatBytes(memory) })}
        />
        <KeyValueList
          items={[
            [t('Processors'), formatNumber(capacity.cpus)],
            [t('Memory left'), formatBytes(available)],
            [t('Disk left'), formatBytes(capacity.disk_free_bytes)],
          ]}
        />
      </div>
    </Card>
  )
}

/** What is still there while it is drained. */
function Draining({ drain }: { drain: Drain }) {
  return (
    <div className="mb-4">
      <Notice
        title={
          drain.moving > 0
            ? plural(
                drain.moving,
                '{count} instance moves to another toolbox',
                '{count} instances move to other toolboxes',
              )
            : drain.ending > 0
              ? plural(
                  drain.ending,
                  '{count} instance has moved and is about to end',
                  '{count} instances have moved and are about to end',
                )
              : drain.stays.length > 0
                ? t('What can move has moved')
                : t('Nothing is left on it: it can be removed')
        }
      >
        {drain.stays.length > 0 && (
          <p className="wrap-anywhere">
            {t('These have no other place, and stay: {servers}.', { servers: drain.stays.join(', ') })}
          </p>
        )}
      </Notice>
    </div>
  )
}

/** Why the replica that answers has no connection to an agent that listens. */
function NotReached({ failure }: { failure: OfferFailure }) {
  return (
    <span className="wrap-anywhere">
      <TickedText text={capital(readableTimes(failure.message))} limit={500} />
      <span className="block text-sm text-muted">
        {plural(failure.failures, '{count} attempt failed', '{count} attempts failed')} ·{' '}
        <RelativeTime at={failure.at} />
      </span>
    </span>
  )
}

function Calls({ toolbox }: { toolbox: Toolbox }) {
  const { link } = toolbox
  if (!link.connected)
    return (
      <Status kind="off" wraps>
        {t('no connection for calls')}
      </Status>
    )
  if (link.breaker === 'closed')
    return (
      <Status kind="good" wraps>
        {link.failures === 0
          ? t('are let through')
          : plural(
              link.failures,
              'are let through; the last one failed',
              'are let through; the last {count} failed',
            )}
      </Status>
    )
  return (
    <span>
      <Status kind="bad" wraps>
        {link.breaker === 'open' ? t('are refused at once') : t('one is tried')}
      </Status>
      {link.retry_at != null && (
        <span className="block text-sm text-muted">
          {t('Next attempt:')} <RelativeTime at={link.retry_at} />
        </span>
      )}
    </span>
  )
}

function Protection({ protection, enforcement }: { protection: string; enforcement: Enforcement }) {
  return (
    <li className="flex flex-wrap items-start justify-between gap-x-4 gap-y-1 border-b px-pad py-2.5 last:border-b-0">
      <div className="min-w-0 flex-1 basis-48">
        <p>{protectionText(protection)}</p>
        {enforcement.detail !== '' && (
          <p className="text-sm text-muted wrap-anywhere">
            <TickedText text={capital(enforcement.detail)} limit={500} />
          </p>
        )}
      </div>
      <Status kind={enforcement.enforced ? 'good' : 'warn'}>
        {enforcement.enforced ? t('Enforced') : t('Not enforced')}
      </Status>
    </li>
  )
}

/** A protection in words; one that this build does not know by its code. */
function protectionText(protection: string): string {
  const texts: Record<string, string> = {
    own_uid: t('Separate users'),
    namespaces: t('Separate processes and mounts'),
    landlock: t('Only its own folders (Landlock)'),
    memory_limit: t('Memory limit'),
    cpu_limit: t('CPU limit'),
    process_limit: t('Limit of processes'),
    seccomp: t('Only the system calls that servers need'),
    server_ports: t('Nothing of another server to connect to'),
    toolyard_ports: t('Nothing of Toolyard to connect to'),
    socket_filter: t('Filters on the sockets of servers'),
    disk_limit: t('Disk limit'),
    volume_limit: t('Limit of volumes'),
    egress_none: t('No network at all, where asked for'),
    egress_hosts: t('Only named hosts, where asked for'),
    volumes: t('Volumes that outlive instances'),
    container_http: t('Servers in containers that speak HTTP'),
    path_grants: t('Only the paths of this host that are listed here'),
    package_requirements: t('Packages with the further requirements of their entry'),
    package_egress: t('Only package registries during an installation'),
  }
  return texts[protection] ?? oneLine(protection, 60)
}
