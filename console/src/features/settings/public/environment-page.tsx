import { useSuspenseQuery } from '@tanstack/react-query'
import { getVersion } from '@/api/generated/system'
import { q } from '@/api/queries'
import { t } from '@/lib/t'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { KeyValueList } from '@/ui/key-value-list'

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
