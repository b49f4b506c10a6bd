import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { ArrowLeft, ChevronRight, Rocket } from 'lucide-react'
import { type ReactNode, useRef, useState } from 'react'
import { flushSync } from 'react-dom'
import { call, isProblem } from '@/api/client'
import { listCredentials } from '@/api/generated/credentials'
import { createServer } from '@/api/generated/servers'
import type { CreateServer, Entry } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { useOnce } from '@/api/once'
import { invalidate } from '@/api/queries'
import { useDenied, useForbidden } from '@/api/session'
import {
  entryParams,
  entryTitle,
  kindText,
  undeployable,
  VerifiedMark,
  verification,
} from '@/features/catalog/public/entry-parts'
import { entryQuery } from '@/features/catalog/public/queries'
import {
  declaredInputs,
  freeName,
  type InputField,
  type Offer,
  offers,
} from '@/features/servers/public/inputs'
import { usePathProblem } from '@/features/servers/public/path-problem'
import { serverQuery } from '@/features/servers/public/queries'
import {
  credentialRefusal,
  initialInputs,
  newSettings,
  type PathProblem,
  type SettingsContext,
  type SettingsIssue,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from '@/features/servers/public/settings'
import { AdvancedFields, InputFields } from '@/features/servers/public/settings-form'
import { placeBody, placeProblem } from '@/features/toolboxes/public/place'
import { PlaceFields } from '@/features/toolboxes/public/place-fields'
import { type Form, useForm } from '@/lib/form'
import { nameProblem } from '@/lib/name'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { DeletedNotice } from '@/ui/deleted-notice'
import { EmptyState } from '@/ui/empty-state'
import { ErrorNote } from '@/ui/error-state'
import { KeyValueList } from '@/ui/key-value-list'
import { LetterTile } from '@/ui/letter-tile'
import { ButtonLink, Link } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Checkbox, RadioGroup } from '@/ui/toggles'
import { UnsavedChangesGuard } from '@/ui/unsaved-changes-bar'
import { NameField } from '../name-field'
import { offerText, Review } from '../review'
import type { DeployValues } from '../values'
import { baseName, nearNamesQuery } from './near-names'

/** What comes after: its rollout, unless it was not to start. */
type OnDeployed = (server: string, starts: boolean) => void

/** Deploys a server from an entry: configure, review, and then its rollout. */
export function DeployPage({
  name,
  version,
  onDeployed,
}: {
  name: string
  version: string | undefined
  onDeployed: OnDeployed
}) {
  const { data: entry, error } = useSuspenseQuery(entryQuery(name, version))
  const all = offers(entry.server).filter((offer) => offer.runs)
  const reason = undeployable(entry)
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/marketplace">{t('Marketplace')}</Link>
            <Link to="/marketplace/$namespace/$name" params={entryParams(entry.name)}>
              {entryTitle(entry)}
            </Link>
          </Breadcrumbs>
        }
        title={t('Deploy {name}', { name: entryTitle(entry) })}
        meta={<VerifiedMark by={entry.verified_by} />}
      />
      {reason !== undefined || all[0] === undefined ? (
        <Card>
          <EmptyState
            icon={Rocket}
            title={t('It cannot be deployed')}
            action={
              <ButtonLink to="/marketplace/$namespace/$name" params={entryParams(entry.name)}>
                {t('See what it offers')}
              </ButtonLink>
            }
          >
            {reason}
          </EmptyState>
        </Card>
      ) : (
        <DeployForm
          entry={entry}
          isDeleted={isGone(error)}
          offers={all}
          first={all[0]}
          onDeployed={onDeployed}
        />
      )}
    </>
  )
}

function DeployForm({
  entry,
  isDeleted,
  offers: all,
  first,
  onDeployed,
}: {
  entry: Entry
  /** Elsewhere, while something was typed here. */
  isDeleted: boolean
  offers: Offer[]
  first: Offer
  onDeployed: OnDeployed
}) {
  const queryClient = useQueryClient()
  const forbidden = useForbidden('server:deploy')
  const denied = useDenied('server:deploy') ?? (isDeleted ? t('It was deleted elsewhere') : undefined)
  const once = useOnce()
  const [step, setStep] = useState<'configure' | 'review'>('configure')
  const top = useRef<HTMLDivElement>(null)
  const goTo = (next: 'configure' | 'review') => {
    flushSync(() => setStep(next))
    top.current?.focus()
    window.scrollTo({ top: 0 })
  }
  const short = entry.name.slice(entry.name.indexOf('/') + 1)
  const [suggested] = useState(() => {
    const near = queryClient.getQueryData(nearNamesQuery(short).queryKey)
    return freeName(baseName(short), new Set(near?.items.map((server) => server.name)))
  })
  const offerOf = (values: { package: string }) => all.find((offer) => offer.kind === values.package) ?? first
  const problemOn = usePathProblem()
  const contextOf = (values: Pick<DeployValues, 'package' | 'toolbox'>): SettingsContext => {
    const offer = offerOf(values)
    return { fields: declaredInputs(offer), kind: offer.kind, pathProblem: problemOn(values.toolbox) }
  }
  const form = useForm<DeployValues, DeployValues>({
    initial: {
      ...newSettings(declaredInputs(first)),
      name: suggested,
      package: first.kind,
      toolbox: '',
      labels: '',
      start: true,
    },
    schema: schemaOf<DeployValues>((values) => {
      const issue = nameProblem(values.name.trim())
      const found: SettingsIssue[] = issue === undefined ? [] : [{ path: ['name'], message: issue }]
      const wrong = values.package === 'remote' ? undefined : placeProblem(values)
      if (wrong !== undefined) found.push({ path: ['labels'], message: wrong })
      return [...found, ...settingsIssues(values, contextOf(values))]
    }),
    fieldOf: (field, values) =>
      field.startsWith('toolbox_labels') ? 'labels' : settingsFieldOf(values)(field),
    submit: async (values) => {
      if (step === 'configure') {
        goTo('review')
        return
      }
      const body: CreateServer = {
        ...settingsBody(values, contextOf(values)),
        entry: entry.name,
        version: entry.version,
        package: values.package,
        name: values.name.trim(),
      }
      if (!values.start) body.start = false
      if (values.package !== 'remote') Object.assign(body, placeBody(values))
      try {
        const server = await once(body, (idempotencyKey) => call(createServer, { body }, { idempotencyKey }))
        queryClient.setQueryData(serverQuery(server.name).queryKey, server)
        // An answer that was lost comes again as it was then: what became of it meanwhile is read.
        void queryClient.invalidateQueries({ queryKey: serverQuery(server.name).queryKey })
        onDeployed(server.name, values.start)
      } catch (error) {
        const gone = credentialRefusal(values, error)
        if (gone !== undefined) void invalidate(queryClient, listCredentials)
        // What is wrong is at a field of the step before, or about the name.
        if (
          gone !== undefined ||
          (isProblem(error) &&
            (error.errors.length > 0 || ['already_exists', 'credential_missing'].includes(error.code)))
        )
          setStep('configure')
        throw gone ?? error
      }
    },
  })
  const { values } = form
  const offer = offerOf(values)
  const context = contextOf(values)
  return (
    <form onSubmit={form.onSubmit} noValidate>
      <UnsavedChangesGuard dirty={form.dirty && !form.submitting} />
      {(forbidden !== undefined || isDeleted) && (
        <div className="mb-4 flex flex-col gap-4">
          {forbidden !== undefined && <Notice>{forbidden}</Notice>}
          {isDeleted && (
            <DeletedNotice
              leave={
                <ButtonLink to="/marketplace" size="small">
                  {t('Go to the marketplace')}
                </ButtonLink>
              }
            />
          )}
        </div>
      )}
      <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,1fr)_20rem]">
        <div ref={top} tabIndex={-1} className="min-w-0 outline-none">
          {step === 'configure' ? (
            <fieldset disabled={forbidden !== undefined} className="min-w-0">
              <Configure form={form} entry={entry} all={all} context={context} />
            </fieldset>
          ) : (
            <Review values={values} entry={entry} offer={offer} context={context} />
          )}
          <div className="mt-4 flex flex-col gap-3">
            <ErrorNote error={form.submitError} />
            <div className="flex flex-wrap justify-end gap-2">
              {step === 'review' && (
                <Button icon={ArrowLeft} onClick={() => goTo('configure')}>
                  {t('Change')}
                </Button>
              )}
              {step === 'configure' ? (
                <Button type="submit" variant="primary" disabledReason={denied}>
                  {t('Review')}
                  <ChevronRight aria-hidden="true" className="-mr-1 size-4" />
                </Button>
              ) : (
                <Button
                  type="submit"
                  variant="primary"
                  icon={Rocket}
                  busy={form.submitting}
                  disabledReason={denied}
                >
                  {values.start ? t('Deploy') : t('Create')}
                </Button>
              )}
            </div>
          </div>
        </div>
        <aside aria-label={t('Entry')} className="lg:sticky lg:top-4">
          <Card>
            <div className="flex items-start gap-3">
              <LetterTile name={entryTitle(entry)} />
              <div className="min-w-0">
                <p className="font-semibold">{entryTitle(entry)}</p>
                <p className="id wrap-anywhere text-muted">{entry.name}</p>
              </div>
            </div>
            <p className="mt-3 text-muted">{oneLine(entry.description, 300)}</p>
            <div className="mt-3">
              <KeyValueList
                items={[
                  [
                    t('Version'),
                    <code key="v" className="id">
                      {oneLine(entry.version, 60)}
                    </code>,
                  ],
                  [t('Source'), oneLine(entry.source, 60)],
                  verification(entry.verified_by),
                ]}
              />
            </div>
          </Card>
        </aside>
      </div>
    </form>
  )
}

function Configure({
  form,
  entry,
  all,
  context,
}: {
  form: Form<DeployValues>
  entry: Entry
  all: Offer[]
  context: SettingsContext
}) {
  const { values } = form
  const required = context.fields.filter((field) => field.required)
  const optional = context.fields.filter((field) => !field.required)
  const choosePackage = (kind: string) => {
    const offer = all.find((one) => one.kind === kind)
    if (offer === undefined) return
    // What was typed stays where the other package asks for the same.
    const inputs = { ...initialInputs(declaredInputs(offer)) }
    for (const key of Object.keys(inputs)) inputs[key] = values.inputs[key] || inputs[key] || ''
    form.set({ package: kind, inputs, bound: {} }, ['package', 'inputs'])
  }
  return (
    <div className="flex min-w-0 flex-col gap-4">
      <Card title={t('Server')}>
        <div className="flex flex-col gap-4">
          <NameField field={form.field('name')} />
          {all.length > 1 && (
            <RadioGroup
              label={t('How it runs')}
              name="package"
              value={values.package}
              onValueChange={choosePackage}
              error={form.errorAt('package')}
              options={all.map((offer) => ({
                value: offer.kind,
                label: kindText(offer.kind),
                hint: <code className="id wrap-anywhere">{offerText(offer)}</code>,
              }))}
            />
          )}
          {context.kind !== 'remote' && (
            <PlaceFields
              toolbox={form.field('toolbox')}
              labels={form.field('labels')}
              hint={t('Where it runs.')}
              onlyUseful
            />
          )}
          <Checkbox
            label={t('Start it at once')}
            hint={t('Otherwise it is made with these settings, and stays stopped until somebody starts it.')}
            value={values.start}
            onValueChange={(start) => form.set({ start })}
          />
        </div>
      </Card>
      {context.fields.length > 0 && (
        <Card
          title={t('Settings of {name}', { name: entryTitle(entry) })}
          description={
            required.length === 0
              ? t('None of them is required.')
              : plural(required.length, '{count} is required.', '{count} are required.')
          }
        >
          {required.length > 0 && (
            <InputFields form={form} fields={required} pathProblem={context.pathProblem} />
          )}
          {optional.length > 0 && (
            <Optional
              fields={optional}
              form={form}
              pathProblem={context.pathProblem}
              apart={required.length > 0 && optional.length > 4}
            />
          )}
        </Card>
      )}
      <Advanced form={form} kind={context.kind} />
    </div>
  )
}

/** Optional inputs: folded away when they are many and something required stands above them. */
function Optional({
  fields,
  form,
  pathProblem,
  apart,
}: {
  fields: readonly InputField[]
  form: Form<DeployValues>
  pathProblem: PathProblem | undefined
  apart: boolean
}) {
  if (!apart) {
    return (
      <div className="mt-4 first:mt-0">
        <InputFields form={form} fields={fields} pathProblem={pathProblem} />
      </div>
    )
  }
  return (
    <Disclosure title={plural(fields.length, '{count} optional setting', '{count} optional settings')}>
      <InputFields form={form} fields={fields} pathProblem={pathProblem} />
    </Disclosure>
  )
}

function Advanced({ form, kind }: { form: Form<DeployValues>; kind: string }) {
  return (
    <Card>
      <Disclosure
        title={t('Advanced')}
        hint={
          kind === 'remote'
            ? t('How long it may take, and when it counts as ready')
            : t('Limits, variables, network, copies, and how it is replaced')
        }
      >
        <AdvancedFields form={form} kind={kind} />
      </Disclosure>
    </Card>
  )
}

/** The form opens it where something in it is wrong. */
function Disclosure({ title, hint, children }: { title: string; hint?: string; children: ReactNode }) {
  const [open, setOpen] = useState(false)
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)} className="group">
      <summary className="flex min-h-control-small flex-wrap items-center gap-x-2 rounded font-medium select-none">
        <ChevronRight
          aria-hidden="true"
          className="size-4 text-muted transition-transform group-open:rotate-90"
        />
        {title}
        {hint !== undefined && <span className="font-normal text-muted">{hint}</span>}
      </summary>
      <div className="mt-4">{children}</div>
    </details>
  )
}
