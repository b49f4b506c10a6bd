import { useQuery, useSuspenseQuery } from '@tanstack/react-query'
import { getReadiness, getVersion, type ReadinessPart } from '@/api/generated/system'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { readableTimes } from '@/lib/format'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { KeyValueList } from '@/ui/key-value-list'
import { Elapsed, RelativeTime } from '@/ui/relative-time'
import { Status } from '@/ui/status'
import { TickedText } from '@/ui/ticked-text'

/** How often it is looked whether this Toolyard is ready, while the page is open. */
const LOOK_MS = 5_000

const DATABASES: Record<string, string> = { sqlite: 'SQLite', postgres: 'PostgreSQL' }

/** What this Toolyard is and where it runs. */
export function EnvironmentPage() {
  const { data } = useSuspenseQuery(q(getVersion, {}))
  return (
    <div className="flex max-w-3xl flex-col gap-4">
      <Card title={t('This Toolyard')}>
        <KeyValueList
          items={[
            [
              t('Version'),
              <span key="version" className="id">
                {data.version}
              </span>,
            ],
            [
              t('API'),
              <span key="api" className="id">
                {data.api}
              </span>,
            ],
            [t('Environment'), data.environment],
            [t('Runs'), targetText(data.deployment_target)],
            [t('Database'), DATABASES[data.database] ?? data.database],
          ]}
        />
      </Card>
      <Readiness />
      <Card
        title={t('Configuration')}
        description={t('It is set where Toolyard runs, by a file, by variables or by flags.')}
      >
        <div className="flex flex-col gap-3">
          <p className="text-muted">
            {t('Every setting with its value and where it came from, secrets left out:')}
          </p>
          <CodeBlock code="toolyard config show" label={t('Command that shows the configuration')} />
          <p className="text-muted">{t('Whether a changed configuration would start:')}</p>
          <CodeBlock code="toolyard config check" label={t('Command that checks the configuration')} />
        </div>
      </Card>
    </div>
  )
}

/** The parts of being ready, for those who may see what runs where. */
function Readiness() {
  const allowed = may(useSession(), 'toolbox:read')
  const { data, dataUpdatedAt } = useQuery({
    ...q(getReadiness, {}),
    enabled: allowed,
    refetchInterval: LOOK_MS,
  })
  if (data === undefined) return null
  const failed = data.loops.filter((loop) => loop.error !== null && loop.error !== undefined)
  return (
    <Card
      title={t('Readiness')}
      description={t('Of the replica that answered; its parts fail apart.')}
      actions={
        <span className="text-sm text-faint">
          {t('looked at')} <RelativeTime at={new Date(dataUpdatedAt)} />
        </span>
      }
    >
      <KeyValueList
        items={[
          [t('Calls are served'), <Part key="gateway" part={data.gateway} />],
          [t('Writes last'), <Part key="writes" part={data.writes} />],
          [t('The control plane works'), <Part key="control_plane" part={data.control_plane} />],
          ...failed.map(
            (loop) =>
              [
                t('Loop {name}', { name: loop.name }),
                <TickedText key={loop.name} text={loop.error} />,
              ] as const,
          ),
        ]}
      />
    </Card>
  )
}

function Part({ part }: { part: ReadinessPart }) {
  return (
    <div className="flex min-w-0 flex-col">
      <div className="flex flex-wrap items-center gap-x-1">
        <Status kind={part.ready ? 'good' : 'bad'}>{part.ready ? t('yes, for') : t('no, for')}</Status>
        <Elapsed since={part.since} />
      </div>
      <span className="wrap-anywhere text-muted">
        <TickedText text={readableTimes(part.message)} />
      </span>
    </div>
  )
}

function targetText(target: string): string {
  switch (target) {
    case 'bare':
      return t('as a plain process')
    case 'systemd':
      return t('as a systemd unit')
    case 'container':
      return t('in a container')
    case 'cluster':
      return t('in a cluster')
    default:
      return target
  }
}
