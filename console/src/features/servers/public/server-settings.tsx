import { useQuery, useQueryClient, useSuspenseInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { call } from '@/api/client'
import { listCredentials } from '@/api/generated/credentials'
import { updateServer } from '@/api/generated/servers'
import type { Entry, Revision, Server, UpdateServer } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { entryQuery, versionsQuery } from '@/features/catalog/public/queries'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote, ErrorState } from '@/ui/error-state'
import { Notice } from '@/ui/notice'
import { Select } from '@/ui/select'
import { SkeletonLines } from '@/ui/skeleton'
import { toast } from '@/ui/toast'
import { UnsavedChangesBar } from '@/ui/unsaved-changes-bar'
import { useAct } from '../acting'
import { misfit, type ServerActionId, serverAction } from '../actions'
import { argumentsOf, settingsOf } from '../settings-of'
import { valueText } from '../spec-text'
import { declaredInputs, offers } from './inputs'
import { revisionsQuery, serverQuery } from './queries'
import { CancelRollout, RolloutTimeline } from './rollout-timeline'
import {
  type SettingsContext,
  type SettingsValues,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from './settings'
import { AdvancedFields, InputFields } from './settings-form'

interface Values extends SettingsValues {
  version: string
}

/** What can be changed of a server, the rollout that a change begins, and what cannot be undone. */
export function ServerSettings({ name }: { name: string }) {
  const { data: server } = useSuspenseQuery(serverQuery(name))
  const { data: revisions } = useSuspenseInfiniteQuery(revisionsQuery(name))
  const revision = revisions.pages
    .flatMap((page) => page.items)
    .find((one) => one.number === meantRevision(server))
  const { rollout } = server
  return (
    <div className="flex max-w-4xl flex-col gap-4">
      {rollout != null && rollout.state !== 'done' && rollout.state !== 'cancelled' && (
        <Card title={t('Rollout')} actions={<CancelRollout rollout={rollout} />}>
          <RolloutTimeline rollout={rollout} />
        </Card>
      )}
      {revision === undefined ? <SkeletonLines count={6} /> : <Ready server={server} revision={revision} />}
      <DangerZone server={server} />
    </div>
  )
}

/** The number of the revision that is meant to run: while a rollout is under way, the one that it goes to. */
function meantRevision(server: Server): number {
  return server.rollout?.state === 'progressing' ? server.rollout.to_revision : server.revision
}

/** Gets what the form is made of: the entry's inputs, and the names of credentials. */
function Ready({ server, revision }: { server: Server; revision: Revision }) {
  const session = useSession()
  const { entry } = revision.spec
  const document = useQuery({
    ...entryQuery(entry?.name ?? '', entry?.version),
    enabled: entry != null && may(session, 'catalog:read'),
  })
  const credentials = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  if (document.isLoading || credentials.isLoading) {
    return (
      <Card title={t('Settings')}>
        <SkeletonLines count={8} />
      </Card>
    )
  }
  const nameOf = (id: string) => credentials.data?.items.find((one) => one.id === id)?.name
  return (
    <>
      {document.error !== null && (
        <Notice tone="warn" title={t('What its entry asks for could not be read')}>
          <p>{t('The other settings can be changed.')}</p>
          <ErrorState
            error={document.error}
            onRetry={() => void document.refetch()}
            className="-mx-4 -mb-2"
          />
        </Notice>
      )}
      <SettingsForm server={server} revision={revision} entry={document.data} credentialName={nameOf} />
    </>
  )
}

function SettingsForm({
  server,
  revision,
  entry,
  credentialName,
}: {
  server: Server
  revision: Revision
  entry: Entry | undefined
  credentialName: (id: string) => string | undefined
}) {
  const client = useQueryClient()
  const denied = useDenied('server:deploy')
  const offer = entry === undefined ? undefined : offers(entry.server).find((one) => one.kind === server.kind)
  const fields = offer === undefined ? [] : declaredInputs(offer)
  const context: SettingsContext = { fields, remote: server.kind === 'remote', existing: true }
  const valuesNow = (): Values => ({
    ...settingsOf(revision.spec, fields, offer, credentialName),
    version: revision.spec.entry?.version ?? '',
  })
  const [base, setBase] = useState(() => ({
    number: revision.number,
    etag: server.etag,
    values: valuesNow(),
  }))
  const form = useForm<Values, Values>({
    initial: base.values,
    schema: schemaOf<Values>((values) => settingsIssues(values, context)),
    fieldOf: (field, values) => settingsFieldOf(values)(field),
    submit: async (values) => {
      const { version } = values
      const body: UpdateServer = settingsBody(values, context, base.values)
      if (version !== base.values.version) body.version = version
      const { name } = server
      const answer = await call(updateServer, { path: { name }, body }, { ifMatch: base.etag })
      client.setQueryData(serverQuery(name).queryKey, answer)
      form.reset(values)
      await client.invalidateQueries({ queryKey: revisionsQuery(name).queryKey })
      toast.done(
        answer.etag === base.etag
          ? {
              title: t('{name} stays as it is', { name }),
              description: t('nothing that it runs with differs'),
            }
          : answer.enabled
            ? {
                title: t('Revision {number} of {name} is rolled out', {
                  number: meantRevision(answer),
                  name,
                }),
              }
            : {
                title: t('Revision {number} of {name} runs at its next start', {
                  number: answer.revision,
                  name,
                }),
              },
      )
    },
  })
  const other = revision.number !== base.number
  if (other && !form.dirty && !form.submitting) {
    // It was changed elsewhere, or saved here, and nothing is typed: the form shows what is true now.
    const values = valuesNow()
    setBase({ number: revision.number, etag: server.etag, values })
    form.reset(values)
  }
  const line = argumentsOf(revision.spec).map((one) => valueText(one, credentialName) ?? '')
  return (
    <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
      {other && form.dirty && (
        <Notice
          tone="warn"
          title={t('It was changed elsewhere to revision {number}', { number: revision.number })}
          actions={
            <Button
              size="small"
              onClick={() => {
                const values = valuesNow()
                setBase({ number: revision.number, etag: server.etag, values })
                form.reset(values)
              }}
            >
              {t('Show what is true now')}
            </Button>
          }
        >
          {t('What you typed is for revision {number}, and cannot be saved over the newer one.', {
            number: base.number,
          })}
        </Notice>
      )}
      {denied !== undefined && <Notice>{denied}</Notice>}
      <fieldset disabled={denied !== undefined} className="flex min-w-0 flex-col gap-4">
        {revision.spec.entry != null && (
          <Card title={t('Version')}>
            <VersionField
              entry={revision.spec.entry.name}
              value={form.values.version}
              current={revision.spec.entry.version}
              onChange={(version) => form.set({ version })}
              error={form.errorAt('version')}
            />
          </Card>
        )}
        {fields.length > 0 && (
          <Card title={t('What its entry asks for')}>
            <InputFields form={form} fields={fields} existing />
          </Card>
        )}
        <Card title={t('More settings')}>
          {line.length > 0 && (
            <p className="mb-4 text-muted">
              {t('Its arguments now:')}{' '}
              <code className="id wrap-anywhere">{oneLine(line.join(' '), 1000)}</code>
            </p>
          )}
          <AdvancedFields form={form} remote={context.remote} />
        </Card>
      </fieldset>
      <ErrorNote error={form.submitError} />
      <UnsavedChangesBar
        dirty={form.dirty}
        saving={form.submitting}
        onDiscard={() => form.reset()}
        save={t('Save and roll out')}
      />
    </form>
  )
}

function VersionField({
  entry,
  value,
  current,
  onChange,
  error,
}: {
  entry: string
  value: string
  current: string
  onChange: (version: string) => void
  error: string | undefined
}) {
  const session = useSession()
  const { data } = useQuery({ ...versionsQuery(entry), enabled: may(session, 'catalog:read') })
  const versions = [...new Set([...(data?.items.map((one) => one.version) ?? []), current, value])]
  return (
    <Select
      id="settings-version"
      label={t('Version of {entry}', { entry: oneLine(entry, 120) })}
      value={value}
      options={versions.map((version) => ({
        value: version,
        label: version === current ? t('{version} (runs now)', { version }) : version,
      }))}
      onValueChange={onChange}
      error={error}
      hint={t('Another version is installed beside this one and takes over once it answers.')}
      className="max-w-sm"
    />
  )
}

function DangerZone({ server }: { server: Server }) {
  return (
    <section aria-labelledby="danger" className="mt-4 rounded-lg border border-bad/40 bg-surface">
      <h2 id="danger" className="border-b border-bad/30 px-pad py-2.5 font-semibold text-bad">
        {t('Danger zone')}
      </h2>
      <ul>
        <DangerItem id={server.enabled ? 'stop' : 'start'} server={server} />
        <DangerItem id="delete" server={server} />
      </ul>
    </section>
  )
}

function DangerItem({ id, server }: { id: ServerActionId; server: Server }): ReactNode {
  const act = useAct()
  const action = serverAction(id)
  const denied = useDenied(action.needs)
  return (
    <li className="flex flex-wrap items-center justify-between gap-x-6 gap-y-2 border-b border-bad/20 px-pad py-3 last:border-b-0">
      <div className="min-w-0 flex-1 basis-72">
        <p className="font-medium">{action.label}</p>
        <p className="text-sm text-muted">{action.consequence}</p>
      </div>
      <Button
        icon={action.icon}
        variant={id === 'delete' ? 'danger' : 'secondary'}
        disabledReason={denied ?? misfit(id, server)}
        onClick={() => void act(id, server.name)}
      >
        {t('{action} {name}', { action: action.label, name: server.name })}
      </Button>
    </li>
  )
}
