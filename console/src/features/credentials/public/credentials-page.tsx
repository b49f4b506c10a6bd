import { useQueryClient, useSuspenseInfiniteQuery } from '@tanstack/react-query'
import { Ellipsis, LockKeyhole, Plus, RefreshCw, Trash2 } from 'lucide-react'
import { useDeferredValue, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { deleteCredential, listCredentials } from '@/api/generated/credentials'
import type { Credential } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { useDenied } from '@/api/session'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { ConfirmDialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { Link } from '@/ui/link'
import { Menu } from '@/ui/menu'
import { Notice } from '@/ui/notice'
import { PageHeader } from '@/ui/page-header'
import { Popover } from '@/ui/popover'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { type Column, Table, UNTIL } from '@/ui/table'
import { toast } from '@/ui/toast'
import { useWholeList } from '@/ui/use-whole-list'
import { CredentialDialog } from '../credential-dialog'
import { credentialsQuery } from './queries'

/** What the page's address says. */
export interface CredentialsSearch {
  search?: string | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

const COLUMNS: ReadonlyArray<Column<Credential>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.name.localeCompare(other.name),
    cell: (credential) => (
      <>
        <span className="id font-medium" title={credential.name}>
          {credential.name}
        </span>
        <span className={`block truncate text-sm text-muted ${UNTIL.xs}`}>
          {plural(credential.used_by.length, 'used by {count} server', 'used by {count} servers')}
        </span>
      </>
    ),
  },
  {
    id: 'description',
    header: t('Description'),
    from: 'lg',
    cell: (credential) => (
      <span className="text-muted" title={oneLine(credential.description, 500)}>
        {oneLine(credential.description) || '–'}
      </span>
    ),
  },
  {
    id: 'used',
    header: t('Used by'),
    width: '9rem',
    from: 'xs',
    compare: (one, other) => one.used_by.length - other.used_by.length,
    cell: (credential) => <UsedBy credential={credential} />,
  },
  {
    id: 'version',
    header: t('Version'),
    width: '6.5rem',
    align: 'end',
    from: 'md',
    compare: (one, other) => one.version - other.version,
    cell: (credential) => formatNumber(credential.version),
  },
  {
    id: 'updated',
    header: t('Secret set'),
    width: '8.5rem',
    align: 'end',
    from: 'sm',
    compare: (one, other) => other.updated_at.localeCompare(one.updated_at),
    cell: (credential) => <RelativeTime at={credential.updated_at} className="text-muted" />,
  },
  {
    id: 'menu',
    header: t('Actions'),
    hideHeader: true,
    width: '3.5rem',
    align: 'end',
    cell: (credential) => <CredentialMenu credential={credential} />,
  },
]

/** The secrets that servers get by reference: which there are and who uses them, never what they are. */
export function CredentialsPage({
  search,
  onSearchChange,
}: {
  search: CredentialsSearch
  onSearchChange: (changes: CredentialsSearch) => void
}) {
  const query = useSuspenseInfiniteQuery(credentialsQuery)
  const unread = useWholeList(query)
  const { data } = query
  const denied = useDenied('credential:manage')
  const [creating, setCreating] = useState(false)
  const credentials = data.pages.flatMap((page) => page.items)
  const wanted = useDeferredValue(search.search ?? '')
    .trim()
    .toLowerCase()
  const shown = credentials.filter((credential) =>
    `${credential.name} ${credential.description ?? ''} ${credential.used_by.join(' ')}`
      .toLowerCase()
      .includes(wanted),
  )
  const create = (
    <Button variant="primary" icon={Plus} disabledReason={denied} onClick={() => setCreating(true)}>
      {t('Create a credential')}
    </Button>
  )
  return (
    <>
      <PageHeader
        title={t('Credentials')}
        meta={<span className="tabular text-muted">{formatNumber(credentials.length)}</span>}
        {...(credentials.length === 0 ? {} : { actions: create })}
      >
        {t('Secrets that servers get by reference, encrypted and never shown again.')}
      </PageHeader>
      {credentials.length === 0 ? (
        <Card>
          <EmptyState icon={LockKeyhole} title={t('No credentials yet')} action={create}>
            {t('A secret that is typed when a server is deployed becomes a credential by itself.')}
          </EmptyState>
        </Card>
      ) : (
        <>
          {unread}
          <Unreadable credentials={credentials} />
          <Outdated credentials={credentials} />
          <div className="mb-3 flex flex-wrap items-center gap-2">
            <SearchInput
              label={t('Search credentials')}
              placeholder={t('Name, description or server')}
              value={search.search ?? ''}
              onValueChange={(text) => onSearchChange({ search: text || undefined })}
            />
            <span role="status" className="tabular text-sm text-muted">
              {wanted === ''
                ? ''
                : t('{shown} of {all} credentials', {
                    shown: formatNumber(shown.length),
                    all: formatNumber(credentials.length),
                  })}
            </span>
          </div>
          <Card flush className="overflow-clip">
            <Table
              label={t('Credentials')}
              rows={shown}
              columns={COLUMNS}
              rowKey={(credential) => credential.id}
              sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
              onSortChange={({ column, descending }) =>
                onSearchChange({ sort: column, descending: descending || undefined })
              }
              empty={
                <EmptyState
                  title={t('No credential fits')}
                  action={
                    <Button onClick={() => onSearchChange({ search: undefined })}>
                      {t('Clear the search')}
                    </Button>
                  }
                />
              }
            />
          </Card>
        </>
      )}
      {creating && <CredentialDialog onClose={() => setCreating(false)} />}
    </>
  )
}

/** Which secrets were sealed with a master key that is not here; nothing when there are none. */
function Unreadable({ credentials }: { credentials: readonly Credential[] }) {
  const unreadable = credentials.filter((credential) => credential.unreadable)
  if (unreadable.length === 0) return null
  return (
    <div className="mb-4">
      <Notice tone="bad" title={t('Secrets were sealed with another master key')}>
        <ul>
          {unreadable.map((credential) => (
            <li key={credential.id}>
              <span className="id">{credential.name}</span>
              {credential.used_by.length > 0 && ': '}
              <ServerLinks names={credential.used_by} />
            </li>
          ))}
        </ul>
        <p>
          {t('Servers cannot start with them. Replace each secret, or start Toolyard with the earlier key.')}
        </p>
      </Notice>
    </div>
  )
}

/** Which servers go on with an older secret of which credentials, or may; nothing when none does. */
function Outdated({ credentials }: { credentials: readonly Credential[] }) {
  const known = credentials.filter(({ outdated_in }) => (outdated_in ?? []).length > 0)
  const unknown = credentials.filter(({ unknown_in }) => (unknown_in ?? []).length > 0)
  if (known.length === 0 && unknown.length === 0) return null
  return (
    <div className="mb-4">
      <Notice
        tone="warn"
        title={
          known.length > 0
            ? t('Servers run with an older secret until they are restarted')
            : t('Servers may run with an older secret until they are restarted')
        }
      >
        <ul>
          {known.map(({ id, name, outdated_in }) => (
            <li key={id}>
              <span className="id">{name}</span>: <ServerLinks names={outdated_in ?? []} />
            </li>
          ))}
          {unknown.map(({ id, name, unknown_in }) => (
            <li key={id}>
              <span className="id">{name}</span>, {t('not known, as their agent is of an earlier version')}:{' '}
              <ServerLinks names={unknown_in ?? []} />
            </li>
          ))}
        </ul>
        <p>{t('Restart them before the older secret is revoked where it came from.')}</p>
      </Notice>
    </div>
  )
}

function ServerLinks({ names }: { names: readonly string[] }) {
  return names.map((name, index) => (
    <span key={name}>
      {index > 0 && ', '}
      <ServerLink name={name} />
    </span>
  ))
}

function UsedBy({ credential }: { credential: Credential }) {
  const [first] = credential.used_by
  if (first === undefined) return <span className="text-faint">{t('nothing')}</span>
  if (credential.used_by.length === 1) return <ServerLink name={first} />
  return (
    <Popover
      title={t('Servers that use {name}', { name: credential.name })}
      trigger={
        <button
          type="button"
          className="rounded-sm text-accent underline-offset-2 hover:underline"
          aria-label={t('Servers that use {name}', { name: credential.name })}
        >
          {plural(credential.used_by.length, '{count} server', '{count} servers')}
        </button>
      }
    >
      <ul className="max-h-64 overflow-y-auto">
        {credential.used_by.map((name) => (
          <li key={name} className="py-0.5">
            <ServerLink name={name} />
          </li>
        ))}
      </ul>
    </Popover>
  )
}

function ServerLink({ name }: { name: string }) {
  return (
    <Link to="/servers/$name" params={{ name }} className="id">
      {name}
    </Link>
  )
}

function CredentialMenu({ credential }: { credential: Credential }) {
  const client = useQueryClient()
  const denied = useDenied('credential:manage')
  const [asked, setAsked] = useState<'replace' | 'delete'>()
  const { name, used_by } = credential
  return (
    <>
      <Menu
        trigger={<IconButton icon={Ellipsis} label={t('Actions for {name}', { name })} size="small" />}
        items={[
          {
            label: t('Replace the secret'),
            icon: RefreshCw,
            onSelect: () => setAsked('replace'),
            disabledReason: denied,
          },
          {
            label: t('Delete'),
            icon: Trash2,
            onSelect: () => setAsked('delete'),
            danger: true,
            separated: true,
            disabledReason:
              denied ??
              (used_by.length === 0
                ? undefined
                : t('Used by {servers}', { servers: oneLine(used_by.join(', '), 120) })),
          },
        ]}
      />
      {asked === 'replace' && (
        <CredentialDialog credential={credential} onClose={() => setAsked(undefined)} />
      )}
      {asked === 'delete' && (
        <ConfirmDialog
          open
          onOpenChange={(open) => !open && setAsked(undefined)}
          title={t('Delete {name}?', { name })}
          confirm={t('Delete')}
          danger
          onConfirm={async () => {
            await callToChange(
              deleteCredential,
              { path: { name } },
              t('It is not known whether {name} is deleted', { name }),
            )
            await invalidate(client, listCredentials)
            toast.done({ title: t('{name} is deleted', { name }) })
          }}
        >
          {t('Its secret cannot be restored. A server that goes back to a revision with it will miss it.')}
        </ConfirmDialog>
      )}
    </>
  )
}
