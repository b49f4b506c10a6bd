import type { ReactNode } from 'react'
import type { Entry } from '@/api/generated/types'
import { kindText } from '@/features/catalog/public/entry-parts'
import type { InputField, Offer } from '@/features/servers/public/inputs'
import {
  grantsOf,
  instancingText,
  privilegesOf,
  type SettingsContext,
  USUAL,
  volumesOf,
} from '@/features/servers/public/settings'
import { LABELLED } from '@/features/toolboxes/public/place'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Card } from '@/ui/card'
import { KeyValueList } from '@/ui/key-value-list'
import { Notice } from '@/ui/notice'
import type { DeployValues } from './values'

/** What an offer runs: the package with its version, or the address. */
export function offerText(offer: Offer): string {
  if (offer.remote !== undefined) return oneLine(offer.remote.url, 300)
  const version = offer.package?.version ? `@${offer.package.version}` : ''
  return oneLine(`${offer.package?.identifier ?? ''}${version}`, 300)
}

/** Everything that will be asked for, before it is; never a secret. */
export function Review({
  values,
  entry,
  offer,
  context,
}: {
  values: DeployValues
  entry: Entry
  offer: Offer
  context: SettingsContext
}) {
  const inputs = context.fields
    .map((field) => [field, inputText(field, values)] as const)
    .filter(([, text]) => text !== undefined)
  const variables = values.environment.filter((row) => row.name !== '')
  const grants = grantsOf(values, context)
  const remote = context.kind === 'remote'
  const changed = (name: keyof typeof USUAL) => values[name] !== USUAL[name]
  return (
    <div className="flex min-w-0 flex-col gap-4">
      <Card title={t('Review')}>
        <KeyValueList
          items={[
            [
              t('Name'),
              <code key="n" className="id">
                {values.name}
              </code>,
            ],
            [
              t('Runs'),
              <span key="r" className="flex flex-wrap items-center gap-2">
                <Badge>{kindText(offer.kind)}</Badge>
                <code className="id wrap-anywhere">{offerText(offer)}</code>
              </span>,
            ],
            [
              t('Toolbox'),
              remote
                ? undefined
                : values.toolbox === LABELLED
                  ? t('any with {labels}', { labels: oneLine(values.labels, 300) })
                  : values.toolbox || t('Toolyard chooses'),
            ],
            ...inputs.map(([field, text]) => [oneLine(field.key, 100), text] as const),
            ...variables.map(
              (row) =>
                [
                  row.name,
                  row.credential === undefined ? (
                    <code key={row.id} className="id whitespace-pre-wrap">
                      {row.value}
                    </code>
                  ) : (
                    t('credential {name}', { name: row.credential })
                  ),
                ] as const,
            ),
            [
              t('Arguments'),
              values.arguments.trim() === '' ? undefined : (
                <code key="a" className="id whitespace-pre-wrap">
                  {values.arguments}
                </code>
              ),
            ],
            [
              t('Is granted on the host'),
              grants.length === 0 ? undefined : (
                <ul key="g">
                  {grants.map(({ path, writable }) => (
                    <li key={path} className="wrap-anywhere">
                      {writable
                        ? t('to read and write {path}', { path: plainText(path, 500) })
                        : t('to read {path}', { path: plainText(path, 500) })}
                    </li>
                  ))}
                </ul>
              ),
            ],
            [
              t('Volumes'),
              remote || values.volumes.length === 0
                ? undefined
                : volumesOf(values)
                    .map((volume) => `${volume.name} (${volume.path})`)
                    .join(', '),
            ],
            [t('Memory'), remote ? undefined : t('at most {size} MiB', { size: values.memory })],
            [
              t('Processes'),
              changed('processes') && !remote ? t('at most {count}', { count: values.processes }) : undefined,
            ],
            [t('Processor'), changed('cpu') && !remote ? limitText(values.cpu, t('mCPU')) : undefined],
            [t('Disk'), changed('disk') && !remote ? limitText(values.disk, 'MiB') : undefined],
            [
              t('Allowed beyond its sandbox'),
              remote ? undefined : privilegesOf(values).join(', ') || undefined,
            ],
            [
              t('To start'),
              changed('startTimeout') ? t('{value} s', { value: values.startTimeout }) : undefined,
            ],
            [
              t('For one call'),
              changed('callTimeout') ? t('{value} s', { value: values.callTimeout }) : undefined,
            ],
            [
              t('For a rollout'),
              changed('rolloutTimeout') ? t('{value} s', { value: values.rolloutTimeout }) : undefined,
            ],
            [t('When it changes'), changed('strategy') ? t('Stop the old one first') : undefined],
            [t('May reach'), remote ? undefined : reachText(values)],
            [
              t('Image pulled by'),
              values.registry === '' ? undefined : t('credential {name}', { name: values.registry }),
            ],
            [
              t('Ready once'),
              values.probeTool.trim() === ''
                ? undefined
                : t('{tool} answered', { tool: oneLine(values.probeTool, 200) }),
            ],
            [t('Instances'), changed('replicas') && !remote ? values.replicas : undefined],
            [
              t('Shared by'),
              changed('instancing') && !remote ? instancingText(values.instancing) : undefined,
            ],
            [t('Observed for'), changed('observe') ? t('{value} s', { value: values.observe }) : undefined],
            [
              t('Changes at'),
              values.updateWindow === '' ? undefined : t('{time} UTC', { time: values.updateWindow }),
            ],
            [
              t('Restarts at'),
              values.restartAt === '' ? undefined : t('{time} UTC', { time: values.restartAt }),
            ],
            [t('Starts'), values.start ? undefined : t('when somebody starts it')],
          ]}
        />
      </Card>
      {!entry.verified_by && (
        <Notice tone="warn" title={t('Nobody here verified this entry')}>
          {remote
            ? t('Its server runs elsewhere and sees what clients send to its tools.')
            : t('Its code runs on your toolbox, with the settings and secrets above.')}
        </Notice>
      )}
      <p className="text-sm text-muted">
        {remote
          ? t('Toolyard connects to it, and serves it once it answers as an MCP server.')
          : t(
              'Toolyard determines the exact versions, installs them, starts the server, and serves it once it answers as an MCP server.',
            )}
      </p>
    </div>
  )
}

/** At most so much, such as `1024 MiB`: zero is no limit, and not nothing. */
export function limitText(value: string, unit: string): string {
  return Number(value) === 0 ? t('without a limit') : t('at most {value} {unit}', { value, unit })
}

function reachText(values: DeployValues): string | undefined {
  if (values.egress === 'all') return undefined
  if (values.egress === 'none') return t('nobody')
  return values.hosts
    .split('\n')
    .map((host) => host.trim())
    .filter((host) => host !== '')
    .join(', ')
}

/** What stands in the review for an input; `undefined` for one that is not set. */
function inputText(field: InputField, values: DeployValues): ReactNode {
  const credential = values.bound[field.key]
  if (credential !== undefined) return t('credential {name}', { name: credential })
  const value = values.inputs[field.key] ?? ''
  if (value === '') return undefined
  if (field.secret) return t('a new secret, kept in the vault')
  return <code className="id whitespace-pre-wrap">{plainText(value, 1000)}</code>
}
