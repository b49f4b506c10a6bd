import { useQuery, useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { type ReactNode, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { isProblem } from '@/api/client'
import { updateServer } from '@/api/generated/servers'
import type { CurrentSettings, Server, UpdateServer } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { may, useDenied, useSession } from '@/api/session'
import { versionsQuery } from '@/features/catalog/public/queries'
import { focusInstead } from '@/lib/focus-after'
import { useForm } from '@/lib/form'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { Notice } from '@/ui/notice'
import { Select } from '@/ui/select'
import { toast } from '@/ui/toast'
import { UnsavedChangesBar } from '@/ui/unsaved-changes-bar'
import { useAct } from '../acting'
import { misfit, type ServerActionId, serverAction } from '../actions'
import { CHANGE_FIELDS, changeBody, changeIssues, type ManagedChange, USUAL_CHANGE } from '../change'
import { ChangeFields } from '../change-fields'
import { PlaceCard } from '../place-card'
import { offerOf, settingsOf } from '../settings-of'
import { HeaderFields } from './header-fields'
import { type HeaderRow, headerFieldOf, headerIssues, headersBody, headersOf, takesHeaders } from './headers'
import { declaredInputs } from './inputs'
import { usePathProblem } from './path-problem'
import { revisionsQuery, serverQuery, settingsQuery } from './queries'
import { RolloutActions, RolloutTimeline } from './rollout-timeline'
import {
  credentialRefusal,
  type SettingsContext,
  type SettingsValues,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from './settings'
import { AdvancedFields, InputFields } from './settings-form'

interface Values extends SettingsValues, ManagedChange {
  version: string
  /** Of a remote server that was registered by its URL. */
  headers: HeaderRow[]
  /** Of a remote server that was registered by its URL. */
  url: string
}

/** What can be changed of a server, the rollout that a change begins, and what cannot be undone. */
export function ServerSettings({ name }: { name: string }) {
  const { data: server, error } = useSuspenseQuery(serverQuery(name))
  const { data: settings, error: settingsError } = useSuspenseQuery(settingsQuery(name))
  const { rollout } = server
  const isDeleted = isGone(error) || isGone(settingsError)
  return (
    <div className="flex max-w-4xl flex-col gap-4">
      {!isDeleted && rollout != null && rollout.state !== 'done' && rollout.state !== 'cancelled' && (
        <Card title={t('Rollout')} actions={<RolloutActions rollout={rollout} />}>
          <RolloutTimeline rollout={rollout} remote={server.kind === 'remote'} />
        </Card>
      )}
      <SettingsForm server={server} settings={settings} isDeleted={isDeleted} />
      {server.kind !== 'remote' && (
        <PlaceCard
          server={server}
          hasVolumes={(settings.volumes ?? []).length > 0}
          recreate={settings.strategy === 'recreate'}
          isDeleted={isDeleted}
        />
      )}
      {!isDeleted && <DangerZone server={server} />}
    </div>
  )
}

function SettingsForm({
  server,
  settings,
  isDeleted,
}: {
  server: Server
  settings: CurrentSettings
  /** Elsewhere, while something was typed here. */
  isDeleted: boolean
}) {
  const client = useQueryClient()
  const denied = useDenied('server:deploy')
  const ownHeaders = takesHeaders(settings)
  const fields = ownHeaders ? [] : declaredInputs(offerOf(settings))
  const context: SettingsContext = { fields, kind: settings.kind }
  const valuesNow = (): Values => ({
    ...settingsOf(settings, fields),
    ...USUAL_CHANGE,
    headers: headersOf(settings),
    version: settings.entry?.version ?? '',
    url: settings.remote?.url ?? '',
  })
  const [base, setBase] = useState(() => ({ settings, values: valuesNow() }))
  const pathProblem = usePathProblem({ values: base.values, context })(
    server.toolbox_removed_at == null ? server.toolbox : undefined,
  )
  const form = useForm<Values, Values>({
    initial: base.values,
    schema: schemaOf<Values>((values) => [
      ...settingsIssues(values, { ...context, pathProblem }),
      ...changeIssues(values),
      ...headerIssues(values.headers),
    ]),
    fieldOf: (field, values) =>
      field === 'url'
        ? field
        : (CHANGE_FIELDS[field] ?? headerFieldOf(field, values.headers) ?? settingsFieldOf(values)(field)),
    submit: async (values) => {
      const { version, url } = values
      const body: UpdateServer = {
        ...settingsBody(values, context, base.values),
        ...changeBody({ ...values, canary: values.canary && values.strategy !== 'recreate' }),
      }
      if (ownHeaders) Object.assign(body, headersBody(values.headers, base.values.headers))
      if (version !== base.values.version) body.version = version
      if (url !== base.values.url) body.url = url.trim()
      const { name } = server
      const answer = await callToChange(
        updateServer,
        { path: { name }, body },
        t('It is not known whether that was saved'),
        { ifMatch: base.settings.etag },
      ).catch((error: unknown) => {
        // What it is now is read at once, not only when the page hears of it.
        if (isProblem(error, 412) || isGone(error))
          for (const { queryKey } of [serverQuery(name), settingsQuery(name)])
            void client.invalidateQueries({ queryKey })
        throw credentialRefusal(values, error) ?? error
      })
      client.setQueryData(serverQuery(name).queryKey, answer)
      // What was typed into a header is in the vault now: the form shows the credential once it is read again.
      // The rollout that it began stands below the heading, and goes when it is done.
      focusInstead(() => form.reset({ ...values, ...USUAL_CHANGE }))
      await Promise.all([
        client.invalidateQueries({ queryKey: settingsQuery(name).queryKey }),
        client.invalidateQueries({ queryKey: revisionsQuery(name).queryKey }),
      ])
      toast.done(
        answer.etag === base.settings.etag
          ? {
              title: t('{name} stays as it is', { name }),
              description: t('nothing that it runs with differs'),
            }
          : answer.enabled
            ? {
                title: t('Revision {number} of {name} is being rolled out', {
                  number: answer.rollout?.to_revision ?? answer.revision,
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
  const other = !isDeleted && settings.etag !== base.settings.etag
  const showCurrent = () => {
    const values = valuesNow()
    setBase({ settings, values })
    form.reset(values)
  }
  // It was changed elsewhere, or saved here, and nothing is typed: the form shows what is true now.
  if (other && !form.dirty && !form.submitting) showCurrent()
  // What saving was refused for is said by the notice.
  const isSaidAbove = (other && isProblem(form.submitError, 412)) || (isDeleted && isGone(form.submitError))
  return (
    <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
      {other && form.dirty && (
        <Notice
          tone="warn"
          title={
            settings.revision === base.settings.revision
              ? t('It was changed elsewhere')
              : t('It was changed elsewhere to revision {number}', { number: settings.revision })
          }
          actions={
            <Button size="small" onClick={showCurrent}>
              {t('Show what is true now')}
            </Button>
          }
        >
          {t('What you typed is for what was set before, and cannot be saved over it.')}
        </Notice>
      )}
      {denied !== undefined && <Notice>{denied}</Notice>}
      <fieldset disabled={denied !== undefined} className="flex min-w-0 flex-col gap-4">
        {settings.entry != null && (
          <Card title={t('Version')}>
            <VersionField
              entry={settings.entry.name}
              value={form.values.version}
              current={settings.entry.version}
              onChange={(version) => form.set({ version })}
              error={form.errorAt('version')}
            />
          </Card>
        )}
        {settings.remote?.url != null && (
          <Card title={t('Address')}>
            {settings.entry == null ? (
              <TextInput
                {...form.field('url')}
                label={t('URL')}
                mono
                hint={t(
                  'Another address is probed first and takes over once it answers. It gets the headers below.',
                )}
                required
              />
            ) : (
              <>
                <code className="id wrap-anywhere">{oneLine(settings.remote.url, 500)}</code>
                <p className="mt-1 text-sm text-muted">
                  {t('It is from the entry; its variables can be set below.')}
                </p>
              </>
            )}
          </Card>
        )}
        {ownHeaders && (
          <Card
            title={t('Headers')}
            description={t('Sent with every request. Their values are kept in the vault.')}
          >
            <HeaderFields form={form} />
          </Card>
        )}
        {fields.length > 0 && (
          <Card title={t('What its entry asks for')}>
            <InputFields form={form} fields={fields} pathProblem={pathProblem} />
          </Card>
        )}
        <Card title={t('More settings')}>
          <AdvancedFields form={form} kind={context.kind} server={server} />
        </Card>
      </fieldset>
      {form.dirty && server.enabled && context.kind !== 'remote' && (
        <ChangeFields form={form} strategy={form.values.strategy} window={settings.update_window ?? ''} />
      )}
      <ErrorNote error={isSaidAbove ? undefined : form.submitError} />
      <UnsavedChangesBar
        dirty={form.dirty}
        saving={form.submitting}
        onDiscard={() => form.reset()}
        save={t('Save and roll out')}
        saveDenied={
          isDeleted
            ? t('It was deleted elsewhere')
            : other
              ? t('It was changed elsewhere: show what is true now first')
              : undefined
        }
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
