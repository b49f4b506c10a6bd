import { useSuspenseQuery } from '@tanstack/react-query'
import { CircleCheck, Rocket, Server as ServerIcon } from 'lucide-react'
import { type ReactNode, useState } from 'react'
import type {
  CallsOverview,
  InstanceError,
  Overview,
  Phase,
  ServersOverview,
  ToolboxStateCount,
} from '@/api/generated/types'
import { may, useSession } from '@/api/session'
import { ErrorList, HealthFacts } from '@/features/servers/public/health'
import { beyondReason, PhaseStatus, phaseKind, phaseText, reasonText } from '@/features/servers/public/phase'
import { formatNumber, formatPercent, formatTime, readableTimes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Boundary } from '@/ui/boundary'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { ButtonLink, Link, PlainLink } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { SparkLine } from '@/ui/spark-line'
import { Status } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'
import { Activity } from '../activity'
import { CallErrors } from '../call-errors'
import { NextSteps } from '../next-steps'
import { overviewQuery } from './queries'

const MOST_ERRORS = 5

/** What runs, what is broken and why, what was called, and what could be next. */
export function OverviewPage() {
  const session = useSession()
  const { data } = useSuspenseQuery(overviewQuery)
  return (
    <>
      <PageHeader
        title={t('Overview')}
        actions={
          may(session, 'server:deploy') && (
            <ButtonLink to="/marketplace" icon={Rocket} variant="primary">
              {t('Deploy a server')}
            </ButtonLink>
          )
        }
      />
      <div className="flex flex-col gap-4">
        <NextSteps facts={data.next_step} />
        {data.servers && <Phases servers={data.servers} />}
        <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,2fr)_minmax(0,1fr)]">
          <div className="flex min-w-0 flex-col gap-4">
            {data.servers && (
              <Part title={t('Needs a look')} flush at={data.at}>
                <Trouble servers={data.servers} />
              </Part>
            )}
            {data.instances && data.instances.recent_errors.length > 0 && (
              <Part title={t('Went wrong in the last day')} flush at={data.at}>
                <Errors errors={data.instances.recent_errors} />
              </Part>
            )}
            {data.activity && (
              <Part title={t('Recent activity')} flush at={data.at}>
                <Activity records={data.activity} />
              </Part>
            )}
          </div>
          <div className="flex min-w-0 flex-col gap-4">
            {data.calls && (
              <Part title={t('Calls of the last hour')} at={data.at}>
                <Calls calls={data.calls} />
              </Part>
            )}
            {data.instances && (
              <Part title={t('Instances')} at={data.at}>
                <HealthFacts health={data.instances} />
              </Part>
            )}
            <Part title={t('At hand')} flush at={data.at}>
              <Holdings overview={data} />
            </Part>
          </div>
        </div>
      </div>
    </>
  )
}

/** The newest of what went wrong; the others on demand. */
function Errors({ errors }: { errors: readonly InstanceError[] }) {
  const [all, setAll] = useState(false)
  const shown = all ? errors : errors.slice(0, MOST_ERRORS)
  return (
    <>
      <ErrorList errors={shown} withToolbox />
      {shown.length < errors.length && (
        <p className="flex flex-wrap items-center gap-x-3 gap-y-1 border-t px-pad py-2.5 text-muted">
          {t('The newest {shown} of {all}.', {
            shown: formatNumber(shown.length),
            all: formatNumber(errors.length),
          })}
          <Button size="small" onClick={() => setAll(true)}>
            {t('Show all')}
          </Button>
        </p>
      )}
    </>
  )
}

/** A card whose failure stays its own. */
function Part({
  title,
  flush = false,
  at,
  children,
}: {
  title: string
  flush?: boolean
  at: string
  children: ReactNode
}) {
  return (
    <Card title={title} flush={flush}>
      <Boundary where={title} resetKey={at}>
        {children}
      </Boundary>
    </Card>
  )
}

/** These are always there, so that the eye finds them; the others only when there are some. */
const ALWAYS: readonly Phase[] = ['ready', 'degraded', 'failed', 'stopped']

function Phases({ servers }: { servers: ServersOverview }) {
  const shown = servers.phases.filter(({ phase, count }) => count > 0 || ALWAYS.includes(phase))
  const place = (phase: Phase) => (ALWAYS.includes(phase) ? ALWAYS.indexOf(phase) : ALWAYS.length)
  return (
    <nav aria-label={t('Servers by state')}>
      <ul className="grid grid-cols-[repeat(auto-fit,minmax(min(9.5rem,100%),1fr))] gap-3">
        <Tile label={t('All servers')} count={servers.total} search={{}} />
        {shown
          .toSorted((one, other) => place(one.phase) - place(other.phase))
          .map(({ phase, count }) => (
            <Tile
              key={phase}
              label={count === 0 ? phaseText(phase) : <PhaseStatus phase={phase} />}
              count={count}
              bad={count > 0 && ['bad', 'warn'].includes(phaseKind(phase))}
              search={{ phase }}
            />
          ))}
      </ul>
    </nav>
  )
}

function Tile({
  label,
  count,
  bad = false,
  search,
}: {
  label: ReactNode
  count: number
  bad?: boolean
  search: { phase?: Phase }
}) {
  return (
    <li>
      <PlainLink
        to="/servers"
        search={search}
        className={`flex h-full flex-col-reverse justify-end gap-0.5 rounded-lg border bg-surface px-4 py-3 transition-colors hover:border-line-strong ${bad ? 'border-bad/40' : ''}`}
      >
        <span className="text-muted">{label}</span>
        <span className={`tabular text-2xl font-semibold ${count === 0 ? 'text-faint' : ''}`}>
          {formatNumber(count)}
        </span>
      </PlainLink>
    </li>
  )
}

function Trouble({ servers }: { servers: ServersOverview }) {
  if (servers.total === 0) {
    return (
      <EmptyState icon={ServerIcon} title={t('No servers yet')}>
        {t('What does not work as it should appears here, with the reason.')}
      </EmptyState>
    )
  }
  if (servers.trouble.length === 0) {
    return (
      <p className="flex min-h-row items-center gap-2 px-pad">
        <CircleCheck aria-hidden="true" className="size-4 text-good" />
        {servers.total === servers.enabled
          ? plural(
              servers.total,
              'The one server does what it should.',
              'All {count} servers do what they should.',
            )
          : t('Nothing needs a look. {stopped} of {total} servers are stopped.', {
              stopped: formatNumber(servers.total - servers.enabled),
              total: formatNumber(servers.total),
            })}
      </p>
    )
  }
  const more = servers.in_trouble - servers.trouble.length
  return (
    <>
      <ul>
        {servers.trouble.map((server) => {
          const message = beyondReason(server.reason, oneLine(readableTimes(server.message), 300))
          return (
            <li key={server.name} className="border-b px-pad py-2.5 last:border-b-0">
              <div className="flex flex-wrap items-center gap-x-4 gap-y-1">
                <Link to="/servers/$name" params={{ name: server.name }} className="id font-medium">
                  {server.name}
                </Link>
                <PhaseStatus phase={server.phase} />
                <span className="min-w-0 flex-1 basis-48">{reasonText(server.reason)}</span>
                <RelativeTime at={server.since} className="text-sm text-faint" />
              </div>
              {(message !== '' || server.next_attempt_at) && (
                <p className="mt-0.5 line-clamp-3 text-sm wrap-anywhere text-muted">
                  <TickedText text={message} />
                  {server.next_attempt_at && (
                    <>
                      {message !== '' && ' · '}
                      {t('next attempt')} <RelativeTime at={server.next_attempt_at} />
                    </>
                  )}
                </p>
              )}
            </li>
          )
        })}
      </ul>
      {more > 0 && (
        <p className="border-t px-pad py-2.5 text-muted">
          <Link to="/servers">{plural(more, '{count} more server', '{count} more servers')}</Link>
        </p>
      )}
    </>
  )
}

/** Says how many calls are not in the numbers, because their records could not be written. */
function Missing({ calls }: { calls: CallsOverview }) {
  const { records_waiting: waiting = 0, records_lost: lost = 0 } = calls
  return (
    <>
      {waiting > 0 && (
        <Notice tone="warn">
          {plural(
            waiting,
            '{count} call record waits on disk until the database takes it.',
            '{count} call records wait on disk until the database takes them.',
          )}
        </Notice>
      )}
      {lost > 0 && (
        <Notice tone="bad">
          {plural(
            lost,
            '{count} call record is lost: neither the database nor the disk took it.',
            '{count} call records are lost: neither the database nor the disk took them.',
          )}
        </Notice>
      )}
    </>
  )
}

function Calls({ calls }: { calls: CallsOverview }) {
  const errors = calls.minutes.reduce((sum, minute) => sum + minute.errors, 0)
  if (calls.total === 0)
    return (
      <div className="flex flex-col gap-3">
        <p className="text-muted">{t('No call since {time}.', { time: formatTime(calls.since) })}</p>
        <Missing calls={calls} />
      </div>
    )
  const busiest = calls.minutes.reduce((most, minute) => (minute.count > most.count ? minute : most))
  return (
    <div className="flex flex-col gap-3">
      <div className="flex flex-wrap items-baseline gap-x-5 gap-y-1">
        <span>
          <span className="tabular text-2xl font-semibold">{formatNumber(calls.total)}</span>{' '}
          <span className="text-muted">{plural(calls.total, 'call', 'calls')}</span>
        </span>
        <Status kind={errors === 0 ? 'good' : errors / calls.total > 0.05 ? 'bad' : 'warn'}>
          {errors === 0
            ? t('no error')
            : t('{share} errors ({count})', {
                share: formatPercent(errors / calls.total),
                count: formatNumber(errors),
              })}
        </Status>
      </div>
      <SparkLine
        className="h-16"
        values={calls.minutes.map((minute) => minute.count)}
        label={t('Calls a minute; at most {count}, at {time}', {
          count: formatNumber(busiest.count),
          time: formatTime(busiest.at),
        })}
      />
      {errors > 0 && (
        <div>
          <p className="mb-1 text-sm text-muted">{t('Errors')}</p>
          <SparkLine
            tone="bad"
            values={calls.minutes.map((minute) => minute.errors)}
            label={t('Errors a minute')}
          />
          <CallErrors calls={calls} />
        </div>
      )}
      <Missing calls={calls} />
      <dl className="grid grid-cols-[minmax(0,1fr)_auto] gap-x-4 gap-y-1 text-sm">
        {calls.outcomes.map(({ outcome, count }) => (
          <div key={outcome} className="contents">
            <dt className="text-muted">{outcomeText(outcome)}</dt>
            <dd className="tabular text-right">{formatNumber(count)}</dd>
          </div>
        ))}
      </dl>
    </div>
  )
}

function outcomeText(outcome: string): string {
  const texts: Record<string, string> = {
    ok: t('answered'),
    tool_error: t('the tool said it failed'),
    server_error: t('the server answered with an error'),
    refused: t('refused'),
    server_not_ready: t('the server was not ready'),
    upstream_failed: t('the server could not be reached'),
    timeout: t('took too long'),
    cancelled: t('cancelled by the client'),
  }
  return texts[outcome] ?? oneLine(outcome, 40)
}

function Holdings({ overview }: { overview: Overview }) {
  return (
    <ul>
      {overview.toolboxes && <ToolboxLine counts={overview.toolboxes} />}
      {overview.toolsets != null && (
        <Line label={<Link to="/toolsets">{t('Toolsets')}</Link>} value={formatNumber(overview.toolsets)} />
      )}
      {overview.credentials != null && (
        <Line
          label={<Link to="/credentials">{t('Credentials')}</Link>}
          value={formatNumber(overview.credentials)}
        />
      )}
    </ul>
  )
}

function Line({ label, value }: { label: ReactNode; value: ReactNode }) {
  return (
    <li className="flex min-h-row flex-wrap items-center justify-between gap-x-3 border-b px-pad last:border-b-0">
      <span>{label}</span>
      <span className="tabular text-muted">{value}</span>
    </li>
  )
}

function ToolboxLine({ counts }: { counts: readonly ToolboxStateCount[] }) {
  const shown = counts.filter(({ count }) => count > 0)
  return (
    <Line
      label={<Link to="/toolboxes">{t('Toolboxes')}</Link>}
      value={
        shown.length === 0 ? (
          t('none')
        ) : (
          <span className="flex flex-wrap justify-end gap-x-3">
            {shown.map(({ state, count }) => (
              <Status
                key={state}
                kind={state === 'online' ? 'good' : state === 'unreachable' ? 'bad' : 'waiting'}
              >
                {t('{count} {state}', { count: formatNumber(count), state: toolboxText(state) })}
              </Status>
            ))}
          </span>
        )
      }
    />
  )
}

function toolboxText(state: string): string {
  const texts: Record<string, string> = {
    enrolling: t('enrolling'),
    online: t('online'),
    unreachable: t('unreachable'),
    draining: t('draining'),
  }
  return texts[state] ?? oneLine(state, 20)
}
