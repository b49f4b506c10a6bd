import { useQuery, useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { ExternalLink as OpenIcon } from 'lucide-react'
import { useMemo, useState } from 'react'
import { encode } from 'uqr'
import * as v from 'valibot'
import { call } from '@/api/client'
import { getConnect } from '@/api/generated/connect'
import { createKey, listKeys } from '@/api/generated/keys'
import type { ConnectClient, CreateApiKey } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate, q } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { usePasswordAgain } from '@/features/account/public/password-again'
import { TargetList, TargetSwitch } from '@/features/mcp/public/target-list'
import { cx } from '@/lib/cx'
import { useForm } from '@/lib/form'
import { LONGEST_NAME, nameSchema } from '@/lib/name'
import { rich } from '@/lib/rich'
import { t } from '@/lib/t'
import { Badge } from '@/ui/badge'
import { Button, buttonClass } from '@/ui/button'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { CopyButton } from '@/ui/copy-button'
import { ErrorNote } from '@/ui/error-state'
import { PasswordInput, TextInput } from '@/ui/inputs'
import { ButtonLink, Link } from '@/ui/link'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Select } from '@/ui/select'
import { RadioGroup } from '@/ui/toggles'
import { FirstCall } from '../first-call'
import { clientLink, filled } from '../snippets'

/** What the page's address says. */
export interface ConnectSearch {
  client?: string | undefined
}

/** Where a server or toolset is chosen. */
export function ConnectPicker() {
  return (
    <>
      <PageHeader title={t('Connect')}>
        {t('Choose what a client shall use: one server, or a toolset with tools of several.')}
      </PageHeader>
      <TargetList to="/connect/$name" />
    </>
  )
}

/** The key that goes into the snippets; `id` is known of keys of this Toolyard that were made or chosen here. */
export interface ChosenKey {
  id: string | undefined
  name: string
  key: string | undefined
  /** Made just now: its first call is the first call. */
  fresh: boolean
}

/** Connects MCP clients to a server or toolset. */
export function ConnectPage({
  name,
  search,
  onSearchChange,
}: {
  name: string
  search: ConnectSearch
  onSearchChange: (search: ConnectSearch) => void
}) {
  const { data: connect } = useSuspenseQuery(q(getConnect, { path: { name }, query: {} }))
  const session = useSession()
  const navigate = useNavigate()
  const [chosen, setChosen] = useState<ChosenKey>()
  const client = connect.clients.find((one) => one.id === search.client) ?? connect.clients[0]
  const key = chosen?.key ?? connect.key_placeholder
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/connect">{t('Connect')}</Link>
          </Breadcrumbs>
        }
        title={rich('Connect a client to {name}', { name: <span className="id">{name}</span> })}
        meta={<span className="text-muted">{connect.kind === 'toolset' ? t('Toolset') : t('Server')}</span>}
        actions={
          <>
            <TargetSwitch
              name={name}
              onChange={(next) => void navigate({ to: '/connect/$name', params: { name: next }, search: {} })}
            />
            {may(session, 'tool:call') && (
              <ButtonLink to="/playground/$name" params={{ name }}>
                {t('Try it in the playground')}
              </ButtonLink>
            )}
          </>
        }
      />
      <div className="grid gap-4 xl:grid-cols-[minmax(0,1fr)_20rem]">
        <div className="flex min-w-0 flex-col gap-4">
          <KeyCard key={name} name={name} client={client} chosen={chosen} onChoose={setChosen} />
          <Card
            title={t('2. Client')}
            description={
              chosen?.key === undefined
                ? rich('Put your key where {placeholder} stands.', {
                    placeholder: <code className="id">{connect.key_placeholder}</code>,
                  })
                : t('The key is in the texts below: keep them to yourself.')
            }
          >
            <div className="flex flex-col gap-4">
              <ClientChoice
                clients={connect.clients}
                chosen={client?.id}
                onChoose={(id) => onSearchChange({ client: id })}
              />
              {client !== undefined && (
                <ClientSteps
                  client={client}
                  apiKey={key}
                  placeholder={connect.key_placeholder}
                  hasKey={chosen?.key !== undefined}
                />
              )}
            </div>
          </Card>
          <FirstCall name={name} chosen={chosen} url={connect.url} />
        </div>
        <Address url={connect.url} />
      </div>
    </>
  )
}

function KeyCard({
  name,
  client,
  chosen,
  onChoose,
}: {
  name: string
  client: ConnectClient | undefined
  chosen: ChosenKey | undefined
  onChoose: (key: ChosenKey | undefined) => void
}) {
  const denied = useDenied('key:manage')
  const session = useSession()
  const [way, setWay] = useState<'make' | 'have'>(may(session, 'key:manage') ? 'make' : 'have')
  if (chosen?.fresh === true && chosen.key !== undefined) {
    return (
      <Card
        title={t('1. Key')}
        actions={
          <Button size="small" variant="ghost" onClick={() => onChoose(undefined)}>
            {t('Use another key')}
          </Button>
        }
      >
        <div className="flex flex-col gap-2">
          <p>
            {rich('The key {name} is made. It is shown only now: copy it, or use it in the snippets below.', {
              name: <strong className="id font-semibold">{chosen.name}</strong>,
            })}
          </p>
          <CodeBlock code={chosen.key} label={t('API key')} wrap />
        </div>
      </Card>
    )
  }
  return (
    <Card
      title={t('1. Key')}
      description={t('Each client should have a key of its own, so that it can be revoked alone.')}
    >
      <div className="flex flex-col gap-4">
        <RadioGroup
          label={t('Key')}
          value={way}
          onValueChange={(next) => {
            setWay(next)
            onChoose(undefined)
          }}
          inline
          options={[
            {
              value: 'make',
              label: t('Make one for this client'),
              ...(denied === undefined ? {} : { disabledReason: denied }),
            },
            { value: 'have', label: t('I have one') },
          ]}
        />
        {way === 'make' ? (
          <MakeKey name={name} client={client} onMade={onChoose} />
        ) : (
          <OwnKey mayList={may(session, 'key:read')} chosen={chosen} onChoose={onChoose} />
        )}
      </div>
    </Card>
  )
}

function MakeKey({
  name,
  client,
  onMade,
}: {
  name: string
  client: ConnectClient | undefined
  onMade: (key: ChosenKey) => void
}) {
  const queryClient = useQueryClient()
  const [edited, setEdited] = useState(false)
  const suggested = `${client?.id ?? 'client'}-${name}`.slice(0, LONGEST_NAME).replace(/-+$/, '')
  const again = usePasswordAgain()
  const once = useOnce()
  const form = useForm({
    initial: { name: suggested, expires: '90' },
    schema: v.object({ name: nameSchema, expires: v.string() }),
    submit: async (values) => {
      const body: CreateApiKey = {
        name: values.name,
        // As little as a client needs: calls to this one thing.
        role: 'developer',
        scope: { actions: ['tool:call'], resources: [name] },
        expires_in_days: Number(values.expires),
      }
      const made = await again.run(() =>
        once(body, (idempotencyKey) => call(createKey, { body }, { idempotencyKey })),
      )
      void invalidate(queryClient, listKeys)
      onMade({ id: made.id, name: made.name, key: made.key, fresh: true })
    },
    fieldOf: (field) => (field === 'expires_in_days' ? 'expires' : field),
  })
  const value = edited ? form.values.name : suggested
  const field = form.field('name')
  return (
    <>
      <form
        noValidate
        onSubmit={form.onSubmit}
        className="grid items-start gap-3 sm:grid-cols-[minmax(0,1fr)_10rem_auto]"
      >
        <TextInput
          {...field}
          value={value}
          onValueChange={(next) => {
            setEdited(true)
            field.onValueChange(next)
          }}
          label={t('Name of the key')}
          hint={rich('It may call {name} and nothing else.', { name: <span className="id">{name}</span> })}
          required
          mono
          autoComplete="off"
        />
        <Select
          {...form.field('expires')}
          label={t('Ends')}
          options={[
            { value: '7', label: t('in 7 days') },
            { value: '30', label: t('in 30 days') },
            { value: '90', label: t('in 90 days') },
            { value: '365', label: t('in a year') },
          ]}
        />
        <Button
          type="submit"
          variant="primary"
          busy={form.submitting}
          className="sm:mt-6"
          onClick={() => !edited && form.set({ name: suggested })}
        >
          {t('Make the key')}
        </Button>
        <div className="sm:col-span-3 empty:hidden">
          <ErrorNote error={form.submitError} />
        </div>
      </form>
      {again.question}
    </>
  )
}

function OwnKey({
  mayList,
  chosen,
  onChoose,
}: {
  mayList: boolean
  chosen: ChosenKey | undefined
  onChoose: (key: ChosenKey | undefined) => void
}) {
  const keys = useQuery({ ...q(listKeys, { query: { limit: 500 } }), enabled: mayList })
  const [typed, setTyped] = useState('')
  const usable = (keys.data?.items ?? []).filter((key) => key.revoked_at == null)
  const known = usable.find((key) => typed.startsWith(key.prefix))
  const id = known?.id ?? chosen?.id
  const choose = (text: string, keyId: string | undefined) => {
    const one = usable.find((key) => (text !== '' && text.startsWith(key.prefix)) || key.id === keyId)
    const key = text === '' ? undefined : text
    onChoose(
      one === undefined && key === undefined
        ? undefined
        : { id: one?.id, name: one?.name ?? t('your key'), key, fresh: false },
    )
  }
  return (
    <div className="grid items-start gap-3 sm:grid-cols-2">
      <PasswordInput
        id="own-key"
        label={t('Key')}
        required={false}
        hint={t('Only for the snippets on this page: it is not sent or stored.')}
        value={typed}
        onValueChange={(text) => {
          setTyped(text.trim())
          choose(text.trim(), undefined)
        }}
      />
      {mayList && (
        <Select
          id="own-key-name"
          label={t('Which one it is')}
          hint={t('So that its next call is noticed here.')}
          value={id ?? ''}
          options={[
            { value: '', label: t('Not chosen') },
            ...usable.map((key) => ({ value: key.id, label: `${key.name} (${key.prefix}…)` })),
          ]}
          onValueChange={(next) => choose(typed, next === '' ? undefined : next)}
        />
      )}
    </div>
  )
}

function ClientChoice({
  clients,
  chosen,
  onChoose,
}: {
  clients: ConnectClient[]
  chosen: string | undefined
  onChoose: (id: string) => void
}) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for what is sent with a form.
    <div
      role="group"
      aria-label={t('Client')}
      className="grid grid-cols-2 gap-2 sm:grid-cols-3 lg:grid-cols-5"
    >
      {clients.map((client) => (
        <button
          key={client.id}
          type="button"
          aria-pressed={client.id === chosen}
          onClick={() => onChoose(client.id)}
          className={cx(
            'flex min-h-11 items-center justify-center rounded-md border px-2 py-1.5 text-center text-sm',
            client.id === chosen
              ? 'border-accent bg-accent-soft font-medium text-accent'
              : 'hover:border-line-strong hover:bg-hover',
          )}
        >
          {client.title}
        </button>
      ))}
    </div>
  )
}

function ClientSteps({
  client,
  apiKey,
  placeholder,
  hasKey,
}: {
  client: ConnectClient
  apiKey: string
  placeholder: string
  hasKey: boolean
}) {
  const fill = (text: string) => filled(text, placeholder, apiKey)
  const href = client.link == null ? undefined : clientLink(client.link, placeholder, apiKey)
  return (
    <div className="flex flex-col gap-4">
      {href !== undefined && (
        <Way title={t('With one click')}>
          {hasKey ? (
            <a href={href} className={cx(buttonClass('primary'), 'w-fit')}>
              <OpenIcon aria-hidden="true" className="-ml-0.5 size-4" />
              {t('Add to {client}', { client: client.title })}
            </a>
          ) : (
            <Button icon={OpenIcon} className="w-fit" disabledReason={t('Make or enter the key first')}>
              {t('Add to {client}', { client: client.title })}
            </Button>
          )}
        </Way>
      )}
      {client.command != null && (
        <Way title={t('By one command')}>
          <CodeBlock code={fill(client.command)} label={t('Command')} wrap />
        </Way>
      )}
      <Way
        title={client.files.length === 0 ? t('From a shell or a program') : t('In its configuration')}
        aside={<Badge mono>{client.format}</Badge>}
      >
        {client.files.length > 0 && (
          <ul className="flex flex-col gap-1 text-sm">
            {client.files.map((file) => (
              <li key={`${file.system} ${file.path}`} className="flex min-w-0 flex-wrap items-center gap-x-2">
                <span className="text-muted">{systemName(file.system)}</span>
                <code className="id min-w-0 wrap-anywhere">{file.path}</code>
                <CopyButton text={file.path} label={t('Copy the path {path}', { path: file.path })} />
              </li>
            ))}
          </ul>
        )}
        <CodeBlock code={fill(client.snippet)} label={t('Snippet for {client}', { client: client.title })} />
        {client.files.length > 0 && (
          <p className="text-sm text-muted">
            {t('Merge it with what is in the file, then start the client again.')}
          </p>
        )}
      </Way>
    </div>
  )
}

function Way({
  title,
  aside,
  children,
}: {
  title: string
  aside?: React.ReactNode
  children: React.ReactNode
}) {
  return (
    <section className="flex min-w-0 flex-col gap-2">
      <div className="flex items-center gap-2">
        <h3 className="text-sm font-medium">{title}</h3>
        {aside}
      </div>
      {children}
    </section>
  )
}

function systemName(system: string): string {
  const names: Readonly<Record<string, string>> = {
    macos: 'macOS',
    windows: 'Windows',
    linux: 'Linux',
    all: t('Every system'),
  }
  return names[system] ?? system
}

/** The address by itself: for clients that are not in the list, and for phones. */
function Address({ url }: { url: string }) {
  return (
    <Card title={t('Address')} className="self-start">
      <div className="flex flex-col gap-3">
        <CodeBlock code={url} label={t('MCP address')} wrap />
        <p className="text-sm text-muted">
          {t('For any other client: Streamable HTTP, with the key as a bearer token.')}
        </p>
        <QrCode text={url} label={t('QR code of the MCP address')} />
        <p className="text-sm text-muted">{t('The address for a phone. The key is not in it.')}</p>
      </div>
    </Card>
  )
}

function QrCode({ text, label }: { text: string; label: string }) {
  const { size, path } = useMemo(() => {
    const code = encode(text, { ecc: 'M', border: 3 })
    const rows = code.data.map((row, y) => row.map((on, x) => (on ? `M${x} ${y}h1v1h-1z` : '')).join(''))
    return { size: code.size, path: rows.join('') }
  }, [text])
  return (
    <svg
      role="img"
      aria-label={label}
      viewBox={`0 0 ${size} ${size}`}
      shapeRendering="crispEdges"
      className="w-full max-w-48 rounded-md border bg-white text-black"
    >
      <path d={path} fill="currentColor" />
    </svg>
  )
}
