import { useQuery, useQueryClient } from '@tanstack/react-query'
import * as v from 'valibot'
import { call } from '@/api/client'
import { listCredentials } from '@/api/generated/credentials'
import { ACTION, ROLE } from '@/api/generated/enums'
import { createKey, listKeys } from '@/api/generated/keys'
import { listServers } from '@/api/generated/servers'
import { listToolsets } from '@/api/generated/toolsets'
import type { Action, CreateApiKey, CreatedApiKey, KeyScope, Role } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate, q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { usePasswordAgain } from '@/features/account/public/password-again'
import { takenAt, useForm } from '@/lib/form'
import { nameSchema } from '@/lib/name'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { CheckList } from '@/ui/check-list'
import { CancelButton } from '@/ui/dialog'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { Select } from '@/ui/select'
import { RadioGroup } from '@/ui/toggles'
import { KeyDialog } from './key-dialog'
import { CALLING } from './key-state'
import { actionHint, rolesBelow, roleText } from './roles'

/** What a key may do: all of its role, only call tools, or a choice. */
type What = 'role' | 'call' | 'chosen'
type Where = 'all' | 'chosen'

interface Values {
  name: string
  role: Role
  days: string
  what: What
  actions: Action[]
  where: Where
  resources: string[]
  credentials: string[]
}

/** The longest that the server takes. */
const MOST_DAYS = 3650

const SCHEMA = v.pipe(
  v.object({
    name: nameSchema,
    role: v.picklist(ROLE),
    days: v.pipe(
      v.string(),
      v.transform(Number),
      v.check(
        (days) => Number.isInteger(days) && days >= 1 && days <= MOST_DAYS,
        t('A whole number of days, at most {most}', { most: MOST_DAYS }),
      ),
    ),
    what: v.picklist(['role', 'call', 'chosen']),
    actions: v.array(v.picklist(ACTION)),
    where: v.picklist(['all', 'chosen']),
    resources: v.array(v.string()),
    credentials: v.array(v.string()),
  }),
  v.forward(
    v.check(({ what, actions }) => what !== 'chosen' || actions.length > 0, t('Choose at least one action')),
    ['actions'],
  ),
  v.forward(
    v.check(
      ({ where, resources }) => where !== 'chosen' || resources.length > 0,
      t('Choose at least one server or toolset'),
    ),
    ['resources'],
  ),
)

/** Makes a key. It is shown afterwards, this once: closing before it was copied asks first. */
export function CreateKeyDialog({ onClose }: { onClose: () => void }) {
  return (
    <KeyDialog
      title={(made) =>
        made === undefined ? t('Create an API key') : t('{name} is made', { name: made.name })
      }
      onClose={onClose}
    >
      {(onMade) => <CreateKey onMade={onMade} />}
    </KeyDialog>
  )
}

function CreateKey({ onMade }: { onMade: (key: CreatedApiKey) => void }) {
  const client = useQueryClient()
  const session = useSession()
  const again = usePasswordAgain()
  const once = useOnce()
  const form = useForm<Values, v.InferOutput<typeof SCHEMA>>({
    initial: {
      name: '',
      role: rolesBelow(session.role).find((role) => role === 'developer') ?? session.role,
      days: '90',
      what: 'call',
      actions: [],
      where: 'all',
      resources: [],
      credentials: [],
    },
    schema: SCHEMA,
    submit: async (values) => {
      const scope: KeyScope = {}
      if (values.what === 'call') scope.actions = [...CALLING]
      if (values.what === 'chosen') scope.actions = values.actions
      if (values.where === 'chosen') scope.resources = values.resources
      if (choosesCredentials(values) && values.credentials.length > 0) scope.credentials = values.credentials
      const body: CreateApiKey = { name: values.name, role: values.role, expires_in_days: values.days }
      if (scope.actions !== undefined || scope.resources !== undefined) body.scope = scope
      const taken = takenAt('name', t('There is an active key of this name'))
      const create = () => once(body, (idempotencyKey) => call(createKey, { body }, { idempotencyKey }))
      onMade(await again.run(create).catch(taken))
      await invalidate(client, listKeys)
    },
    fieldOf: (field) =>
      ({
        expires_in_days: 'days',
        'scope.actions': 'actions',
        'scope.resources': 'resources',
        'scope.credentials': 'credentials',
      })[field] ?? field,
  })
  const { values } = form
  return (
    <>
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-5">
        <div className="grid gap-4 sm:grid-cols-2">
          <TextInput
            {...form.field('name')}
            label={t('Name')}
            hint={t('What will use it, such as claude-desktop')}
            autoComplete="off"
            mono
            required
          />
          <Select
            {...form.field('days')}
            label={t('Expires')}
            options={[
              { value: '1', label: t('In a day') },
              { value: '7', label: t('In 7 days') },
              { value: '30', label: t('In 30 days') },
              { value: '90', label: t('In 90 days') },
              { value: '365', label: t('In a year') },
            ]}
          />
        </div>
        <Select
          {...form.field('role')}
          label={t('Role')}
          hint={t('The key does at most what this role may do.')}
          options={rolesBelow(session.role).map((role) => ({ value: role, label: roleText(role) }))}
        />
        <RadioGroup
          {...form.field('what')}
          label={t('What it may do')}
          options={[
            {
              value: 'call',
              label: t('Call tools'),
              hint: t('For MCP clients: sees servers and toolsets, and calls what they offer.'),
            },
            {
              value: 'role',
              label: t('Everything that its role may'),
              hint: t('For programs that manage Toolyard, such as a build pipeline.'),
            },
            { value: 'chosen', label: t('Only chosen actions') },
          ]}
        />
        {values.what === 'chosen' && <Actions {...form.field('actions')} />}
        <RadioGroup
          {...form.field('where')}
          label={t('On what')}
          options={[
            { value: 'all', label: t('All servers and toolsets, later ones too') },
            { value: 'chosen', label: t('Only chosen servers and toolsets') },
          ]}
        />
        {values.where === 'chosen' && <Resources {...form.field('resources')} />}
        {choosesCredentials(values) && <Credentials {...form.field('credentials')} />}
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Create the key')}
          </Button>
        </div>
      </form>
      {again.question}
    </>
  )
}

/** Whether the key may bind credentials, but by itself none, because it is narrowed to some servers. */
function choosesCredentials({ what, actions, where }: Pick<Values, 'what' | 'actions' | 'where'>): boolean {
  return where === 'chosen' && (what === 'role' || (what === 'chosen' && actions.includes('credential:use')))
}

function Actions({
  value,
  onValueChange,
  error,
}: {
  value: Action[]
  onValueChange: (value: Action[]) => void
  error: string | undefined
}) {
  const session = useSession()
  return (
    <CheckList
      label={t('Actions')}
      value={value}
      onValueChange={onValueChange}
      error={error}
      options={ACTION.map((action) => ({
        value: action,
        label: <span className="id">{action}</span>,
        text: action,
        hint: actionHint(action),
        ...(may(session, action) ? {} : { disabledReason: t('Your role does not allow this') }),
      }))}
    />
  )
}

function Resources({
  value,
  onValueChange,
  error,
}: {
  value: string[]
  onValueChange: (value: string[]) => void
  error: string | undefined
}) {
  const session = useSession()
  const servers = useQuery({
    ...q(listServers, { query: { limit: 500 } }),
    enabled: may(session, 'server:read'),
  })
  const toolsets = useQuery({
    ...q(listToolsets, { query: { limit: 500 } }),
    enabled: may(session, 'toolset:read'),
  })
  const names = [
    ...(toolsets.data?.items ?? []).map(({ name }) => ({ name, hint: t('toolset') })),
    ...(servers.data?.items ?? []).map(({ name }) => ({ name, hint: t('server') })),
  ]
  const failed = servers.error ?? toolsets.error
  return (
    <>
      {failed !== null && <ErrorNote error={failed} />}
      <CheckList
        label={t('Servers and toolsets')}
        value={value}
        onValueChange={onValueChange}
        error={error}
        options={names.map(({ name, hint }) => ({
          value: name,
          label: <span className="id">{name}</span>,
          text: name,
          hint,
        }))}
        empty={
          servers.isLoading || toolsets.isLoading
            ? t('Loading')
            : t('There are no servers and no toolsets yet')
        }
      />
    </>
  )
}

function Credentials({
  value,
  onValueChange,
  error,
}: {
  value: string[]
  onValueChange: (value: string[]) => void
  error: string | undefined
}) {
  const session = useSession()
  const credentials = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  return (
    <>
      {credentials.error !== null && <ErrorNote error={credentials.error} />}
      <CheckList
        label={t('Credentials that it may bind to these servers')}
        value={value}
        onValueChange={onValueChange}
        error={error}
        options={(credentials.data?.items ?? []).map(({ name, description }) => ({
          value: name,
          label: <span className="id">{name}</span>,
          text: name,
          hint: description,
        }))}
        empty={credentials.isLoading ? t('Loading') : t('There are no credentials yet')}
      />
    </>
  )
}
