import { useQueryClient } from '@tanstack/react-query'
import { Link2 } from 'lucide-react'
import { call } from '@/api/client'
import { createServer } from '@/api/generated/servers'
import type { CreateServer, RemoteTransport } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { useDenied, useForbidden } from '@/api/session'
import { HeaderFields } from '@/features/servers/public/header-fields'
import { type HeaderRow, headerFieldOf, headerIssues, headersBody } from '@/features/servers/public/headers'
import { nameFrom } from '@/features/servers/public/inputs'
import { serverQuery } from '@/features/servers/public/queries'
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
import { useForm } from '@/lib/form'
import { nameProblem } from '@/lib/name'
import { t } from '@/lib/t'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { Link } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { RadioGroup } from '@/ui/toggles'
import { UnsavedChangesGuard } from '@/ui/unsaved-changes-bar'
import { NameField } from '../name-field'

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
  const forbidden = useForbidden('server:deploy')
  const denied = useDenied('server:deploy')
  const once = useOnce()
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
    fieldOf: (field, values) => headerFieldOf(field, values.headers) ?? settingsFieldOf(values)(field),
    submit: async (values) => {
      const body: CreateServer = {
        ...settingsBody(values, CONTEXT),
        name: values.name.trim(),
        url: values.url.trim(),
        transport: values.transport,
      }
      const { inputs, credentials } = headersBody(values.headers)
      Object.assign(body, { inputs, credentials })
      const server = await once(body, (idempotencyKey) => call(createServer, { body }, { idempotencyKey }))
      queryClient.setQueryData(serverQuery(server.name).queryKey, server)
      // An answer that was lost comes again as it was then: what became of it meanwhile is read.
      void queryClient.invalidateQueries({ queryKey: serverQuery(server.name).queryKey })
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
        {forbidden !== undefined && <Notice>{forbidden}</Notice>}
        <fieldset disabled={forbidden !== undefined} className="flex min-w-0 flex-col gap-4">
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
          <Card
            title={t('Headers')}
            description={t('Sent with every request. Their values are kept in the vault.')}
          >
            <HeaderFields form={form} />
          </Card>
          <Card title={t('Advanced')}>
            <AdvancedFields form={form} kind="remote" />
          </Card>
        </fieldset>
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
  return [...issues, ...headerIssues(values.headers)]
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
