import { useQuery, useQueryClient } from '@tanstack/react-query'
import { Link2, Plus, Trash2 } from 'lucide-react'
import { call } from '@/api/client'
import { listCredentials } from '@/api/generated/credentials'
import { createServer } from '@/api/generated/servers'
import type { CreateServer, RemoteTransport } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { nameFrom } from '@/features/servers/public/inputs'
import { serverQuery } from '@/features/servers/public/queries'
import { rowId } from '@/features/servers/public/row-id'
import {
  newSettings,
  type SettingsIssue,
  type SettingsValues,
  schemaOf,
  settingsBody,
  settingsFieldOf,
  settingsIssues,
} from '@/features/servers/public/settings'
import { AdvancedFields } from '@/features/servers/public/settings-form'
import { type Form, useForm } from '@/lib/form'
import { nameProblem } from '@/lib/name'
import { t } from '@/lib/t'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { Combobox } from '@/ui/combobox'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, TextInput } from '@/ui/inputs'
import { Link } from '@/ui/link'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { RadioGroup } from '@/ui/toggles'
import { UnsavedChangesGuard } from '@/ui/unsaved-changes-bar'
import { useIdempotencyKey } from '../idempotency'
import { NameField } from '../name-field'

/** A header of every request. Its value is a secret. */
interface HeaderRow {
  id: string
  name: string
  value: string
  /** The credential that gives the value; `''` while none is chosen. */
  credential: string | undefined
}

interface RegisterValues extends SettingsValues {
  name: string
  url: string
  transport: RemoteTransport
  headers: HeaderRow[]
}

const CONTEXT = { fields: [], kind: 'remote' }

/** Registers an MCP server that runs elsewhere, by its address. */
export function RegisterPage({ onDeployed }: { onDeployed: (server: string) => void }) {
  const queryClient = useQueryClient()
  const denied = useDenied('server:deploy')
  const keyOf = useIdempotencyKey()
  const form = useForm<RegisterValues, RegisterValues>({
    initial: {
      ...newSettings([]),
      name: '',
      url: '',
      transport: 'streamable-http',
      headers: [],
    },
    schema: schemaOf<RegisterValues>((values) => [
      ...registerIssues(values),
      ...settingsIssues(values, CONTEXT),
    ]),
    fieldOf: (field, values) => {
      const header = /^(?:inputs|credentials)\.(.+)$/.exec(field)?.[1]
      const row = values.headers.find((one) => one.name === header)
      return row === undefined ? settingsFieldOf(values)(field) : `headers.${row.id}`
    },
    submit: async (values) => {
      const body: CreateServer = {
        ...settingsBody(values, CONTEXT),
        name: values.name.trim(),
        url: values.url.trim(),
        transport: values.transport,
      }
      const headers = values.headers.filter((row) => row.name !== '')
      body.inputs = Object.fromEntries(
        headers.filter((row) => row.credential === undefined).map((row) => [row.name, row.value]),
      )
      body.credentials = Object.fromEntries(
        headers.flatMap((row) => (row.credential === undefined ? [] : [[row.name, row.credential]])),
      )
      const server = await call(createServer, { body }, { idempotencyKey: keyOf(body) })
      queryClient.setQueryData(serverQuery(server.name).queryKey, server)
      onDeployed(server.name)
    },
  })
  const { values } = form
  const changeUrl = (url: string) => {
    // The name follows the address until somebody types one.
    const follows = values.name === '' || values.name === nameOf(values.url)
    form.set(follows ? { url, name: nameOf(url) } : { url })
  }
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/marketplace">{t('Marketplace')}</Link>
          </Breadcrumbs>
        }
        title={t('Register a server by its address')}
      >
        {t('For an MCP server that runs elsewhere. Toolyard connects to it, and serves it beside your own.')}
      </PageHeader>
      <form onSubmit={form.onSubmit} noValidate className="flex max-w-3xl flex-col gap-4">
        <UnsavedChangesGuard dirty={form.dirty && !form.submitting} />
        <Card title={t('Server')}>
          <div className="flex flex-col gap-4">
            <TextInput
              {...form.field('url')}
              onValueChange={changeUrl}
              label={t('Address')}
              hint={t('The MCP address of the server.')}
              type="url"
              inputMode="url"
              placeholder="https://mcp.example.com/mcp"
              autoComplete="off"
              required
              mono
            />
            <NameField field={form.field('name')} />
            <RadioGroup
              label={t('Protocol')}
              name="transport"
              value={values.transport}
              onValueChange={(transport) => form.set({ transport })}
              options={[
                {
                  value: 'streamable-http',
                  label: t('Streamable HTTP'),
                  hint: t('Nearly all servers of today.'),
                },
                { value: 'sse', label: t('HTTP with SSE'), hint: t('Servers from before March 2025.') },
              ]}
            />
          </div>
        </Card>
        <Headers form={form} />
        <Card title={t('Advanced')}>
          <AdvancedFields form={form} kind="remote" />
        </Card>
        <ErrorNote error={form.submitError} />
        <div className="flex justify-end">
          <Button type="submit" variant="primary" icon={Link2} busy={form.submitting} disabledReason={denied}>
            {t('Register')}
          </Button>
        </div>
      </form>
    </>
  )
}

function nameOf(url: string): string {
  try {
    const host = new URL(url).hostname
    const labels = host.replace(/^(?:(?:www|mcp|api)\.)+/, '').split('.')
    // An address without a name stays as it is; a name goes without its top-level domain.
    return nameFrom(
      /^[\d.[\]:]+$/.test(host) ? host : labels.slice(0, Math.max(1, labels.length - 1)).join('-'),
    )
  } catch {
    return ''
  }
}

function registerIssues(values: RegisterValues): SettingsIssue[] {
  const issues: SettingsIssue[] = []
  const name = nameProblem(values.name.trim())
  if (name !== undefined) issues.push({ path: ['name'], message: name })
  const url = urlIssue(values.url.trim())
  if (url !== undefined) issues.push({ path: ['url'], message: url })
  const names = new Set<string>()
  for (const row of values.headers) {
    if (row.name === '' && row.value === '' && row.credential === undefined) continue
    const lower = row.name.toLowerCase()
    let message: string | undefined
    if (row.name === '') message = t('Give the header a name')
    else if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(row.name)) message = t('It is not a header’s name')
    else if (names.has(lower)) message = t('{name} is given twice', { name: row.name })
    else if (row.credential === '') message = t('Choose a credential')
    else if (row.credential === undefined && row.value === '') message = t('Give it a value')
    if (message !== undefined) issues.push({ path: ['headers', row.id], message })
    names.add(lower)
  }
  return issues
}

function urlIssue(text: string): string | undefined {
  if (text === '') return t('Give its address')
  try {
    const url = new URL(text)
    if (url.protocol !== 'https:' && url.protocol !== 'http:') return t('It begins with https:// or http://')
    if (url.username !== '' || url.password !== '')
      return t('Put secrets into a header, not into the address')
    return undefined
  } catch {
    return t('It is not an address, such as https://mcp.example.com/mcp')
  }
}

function Headers({ form }: { form: Form<RegisterValues> }) {
  const session = useSession()
  const credentials = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  const names = credentials.data?.items.map((one) => one.name) ?? []
  const { headers } = form.values
  const change = (id: string, changes: Partial<HeaderRow>) =>
    form.set({ headers: headers.map((row) => (row.id === id ? { ...row, ...changes } : row)) }, [
      `headers.${id}`,
    ])
  return (
    <Card
      title={t('Headers')}
      description={t('Sent with every request. Their values are kept in the vault.')}
    >
      <div className="flex flex-col gap-4">
        {headers.map((row) => (
          <div
            key={row.id}
            className="grid items-start gap-2 sm:grid-cols-[minmax(0,1fr)_minmax(0,1.5fr)_auto]"
          >
            <TextInput
              id={`header-${row.id}`}
              label={t('Name')}
              value={row.name}
              onValueChange={(name) => change(row.id, { name })}
              error={form.errorAt(`headers.${row.id}`)}
              placeholder="Authorization"
              autoComplete="off"
              mono
            />
            {row.credential === undefined ? (
              <PasswordInput
                id={`header-value-${row.id}`}
                label={t('Value')}
                value={row.value}
                onValueChange={(value) => change(row.id, { value })}
                placeholder="Bearer …"
              />
            ) : (
              <Combobox
                id={`header-value-${row.id}`}
                label={t('Credential')}
                value={row.credential}
                onValueChange={(credential) => change(row.id, { credential })}
                options={names.map((name) => ({ value: name, label: name }))}
                placeholder={t('Choose a credential')}
                mono
              />
            )}
            <IconButton
              icon={Trash2}
              label={t('Remove {name}', { name: row.name || t('the header') })}
              className="sm:mt-6"
              onClick={() =>
                form.set({ headers: headers.filter((one) => one.id !== row.id) }, [`headers.${row.id}`])
              }
            />
          </div>
        ))}
        <div className="flex flex-wrap gap-2">
          <Button
            size="small"
            icon={Plus}
            onClick={() =>
              form.set(
                { headers: [...headers, { id: rowId(), name: '', value: '', credential: undefined }] },
                [],
              )
            }
          >
            {t('Add a header')}
          </Button>
          {names.length > 0 && (
            <Button
              size="small"
              icon={Plus}
              onClick={() =>
                form.set({ headers: [...headers, { id: rowId(), name: '', value: '', credential: '' }] }, [])
              }
            >
              {t('Add a header from a credential')}
            </Button>
          )}
        </div>
      </div>
    </Card>
  )
}
