import { useQuery, useQueryClient, useSuspenseInfiniteQuery } from '@tanstack/react-query'
import { KeyRound, Plus } from 'lucide-react'
import { useDeferredValue, useMemo, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { deleteKey, listKeys } from '@/api/generated/keys'
import type { ApiKey } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { MadeKeys } from '@/features/account/public/made-keys'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ConfirmDialog, Drawer } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { FilterChips } from '@/ui/filter-chips'
import { KeyValueList } from '@/ui/key-value-list'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { Status, type StatusKind } from '@/ui/status'
import { type Column, Table, UNTIL } from '@/ui/table'
import { toast } from '@/ui/toast'
import { useNow } from '@/ui/use-now'
import { useWholeList } from '@/ui/use-whole-list'
import { CreateKeyDialog } from '../create-key'
import { type KeyState, keyState, keyStateText, scopeText } from '../key-state'
import { compareRoles, roleText } from '../roles'
import { RotateKeyDialog } from '../rotate-key'
import { keysQuery, membersQuery } from './queries'

/** What the page's address says. */
export interface KeysSearch {
  search?: string | undefined
  state?: KeyState | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

/** A key as the table shows it. */
interface Row {
  key: ApiKey
  state: KeyState
  maker: string
  open: () => void
}

const STATES: readonly KeyState[] = ['active', 'expired', 'revoked']
const KIND: Record<KeyState, StatusKind> = { active: 'good', expired: 'off', revoked: 'bad' }

const COLUMNS: ReadonlyArray<Column<Row>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.key.name.localeCompare(other.key.name),
    cell: ({ key, state, open }) => (
      <>
        <button
          type="button"
          onClick={open}
          className="id min-h-6 max-w-full truncate rounded-sm font-medium underline-offset-2 hover:text-accent hover:underline"
        >
          {key.name}
        </button>
        <span className={`block text-sm whitespace-normal text-muted ${UNTIL.md}`}>
          {key.expires_at == null ? (
            t('never expires')
          ) : (
            <>
              {state === 'expired' ? t('expired') : t('expires')} <RelativeTime at={key.expires_at} />
            </>
          )}
          {' · '}
          {key.last_used_at == null ? (
            t('not used yet')
          ) : (
            <>
              {t('used')} <RelativeTime at={key.last_used_at} />
            </>
          )}
        </span>
      </>
    ),
  },
  {
    id: 'state',
    header: t('State'),
    width: '7rem',
    compare: (one, other) => STATES.indexOf(one.state) - STATES.indexOf(other.state),
    cell: ({ state }) => <Status kind={KIND[state]}>{keyStateText(state)}</Status>,
  },
  {
    id: 'prefix',
    header: t('Begins with'),
    width: '9rem',
    from: 'xl',
    cell: ({ key }) => <code className="id text-muted">{oneLine(key.prefix, 20)}…</code>,
  },
  {
    id: 'role',
    header: t('Role'),
    width: '7rem',
    from: 'sm',
    compare: (one, other) => compareRoles(one.key.role, other.key.role),
    cell: ({ key }) => roleText(key.role),
  },
  {
    id: 'scope',
    header: t('May do'),
    from: 'lg',
    cell: ({ key }) => <span className="text-muted">{scopeText(key.scope)}</span>,
  },
  {
    id: 'maker',
    header: t('Made by'),
    from: 'xl',
    compare: (one, other) => one.maker.localeCompare(other.maker),
    cell: ({ maker }) => (
      <span className="text-muted" title={maker}>
        {maker}
      </span>
    ),
  },
  {
    id: 'used',
    header: t('Last used'),
    width: '8rem',
    from: 'md',
    compare: (one, other) => (other.key.last_used_at ?? '').localeCompare(one.key.last_used_at ?? ''),
    cell: ({ key }) =>
      key.last_used_at == null ? (
        <span className="text-faint">{t('Not yet')}</span>
      ) : (
        <RelativeTime at={key.last_used_at} className="text-muted" />
      ),
  },
  {
    id: 'expires',
    header: t('Expires'),
    width: '8rem',
    from: 'md',
    compare: (one, other) => (one.key.expires_at ?? '~').localeCompare(other.key.expires_at ?? '~'),
    cell: ({ key }) =>
      key.expires_at == null ? (
        <span className="text-faint">{t('Never')}</span>
      ) : (
        <RelativeTime at={key.expires_at} className="text-muted" />
      ),
  },
]

/** The keys of programs: which there are, what they may do, and when they were used. */
export function KeysPage({
  search,
  onSearchChange,
}: {
  search: KeysSearch
  onSearchChange: (changes: KeysSearch) => void
}) {
  const query = useSuspenseInfiniteQuery(keysQuery)
  const unread = useWholeList(query)
  const { data } = query
  const denied = useDenied('key:manage')
  const makerOf = useMakers()
  // Those who see the members see the keys of all of them; others see their own.
  const seesAll = may(useSession(), 'member:read')
  const [creating, setCreating] = useState(false)
  const [shownId, setShownId] = useState<string>()
  const minute = useNow((now) => Math.floor(now / 60_000))
  const rows = useMemo(() => {
    const keys = data.pages.flatMap((page) => page.items)
    const names = new Map<string, string>(keys.map((key) => [`api_key:${key.id}`, key.name]))
    return keys.map(
      (key): Row => ({
        key,
        state: keyState(key, minute * 60_000),
        maker: names.get(key.created_by) ?? makerOf(key.created_by),
        open: () => setShownId(key.id),
      }),
    )
  }, [data, minute, makerOf])
  const wanted = useDeferredValue(search.search ?? '')
    .trim()
    .toLowerCase()
  const fitting = rows.filter(({ key, maker }) =>
    `${key.name} ${key.prefix} ${maker} ${roleText(key.role)}`.toLowerCase().includes(wanted),
  )
  const shown = search.state === undefined ? fitting : fitting.filter((row) => row.state === search.state)
  const opened = rows.find((row) => row.key.id === shownId)
  const add = (
    <Button variant="primary" icon={Plus} disabledReason={denied} onClick={() => setCreating(true)}>
      {t('Create a key')}
    </Button>
  )
  return (
    <>
      {rows.length === 0 ? (
        <Card>
          <EmptyState
            icon={KeyRound}
            title={seesAll ? t('No API keys yet') : t('You have no API keys yet')}
            action={add}
          >
            {t(
              'Programs and MCP clients use a key instead of a password. It can be narrowed to a few servers.',
            )}
          </EmptyState>
        </Card>
      ) : (
        <>
          {unread}
          <div className="mb-3 flex flex-wrap items-center gap-2">
            <SearchInput
              label={t('Search keys')}
              placeholder={t('Name, maker or role')}
              value={search.search ?? ''}
              onValueChange={(text) => onSearchChange({ search: text || undefined })}
            />
            <FilterChips
              label={t('State')}
              chosen={search.state === undefined ? [] : [search.state]}
              options={STATES.map((state) => ({
                value: state,
                label: keyStateText(state),
                count: fitting.filter((row) => row.state === state).length,
              })).filter((option) => option.count > 0 || option.value === search.state)}
              onChange={([state]) => onSearchChange({ state })}
            />
            <div className="ml-auto">{add}</div>
          </div>
          <Card flush className="overflow-clip">
            <Table
              label={t('API keys')}
              rows={shown}
              columns={COLUMNS}
              rowKey={(row) => row.key.id}
              sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
              onSortChange={({ column, descending }) =>
                onSearchChange({ sort: column, descending: descending || undefined })
              }
              empty={
                <EmptyState
                  title={t('No key fits')}
                  action={
                    <Button onClick={() => onSearchChange({ search: undefined, state: undefined })}>
                      {t('Clear the filters')}
                    </Button>
                  }
                />
              }
            />
          </Card>
        </>
      )}
      {creating && <CreateKeyDialog onClose={() => setCreating(false)} />}
      {opened !== undefined && <KeyDrawer row={opened} onClose={() => setShownId(undefined)} />}
    </>
  )
}

/** Names who made a key, as far as this session may know. */
function useMakers(): (actor: string) => string {
  const session = useSession()
  const seesMembers = may(session, 'member:read')
  const { data } = useQuery({ ...membersQuery, enabled: seesMembers })
  return useMemo(() => {
    const members = new Map(data?.items.map((member) => [`user:${member.id}`, member.email]))
    return (actor: string) => {
      // Who may not see members sees only keys of their own.
      const own = !seesMembers && session.kind === 'user' && actor.startsWith('user:')
      return oneLine(members.get(actor) ?? (own ? session.display : actor), 120)
    }
  }, [data, session, seesMembers])
}

function KeyDrawer({ row, onClose }: { row: Row; onClose: () => void }) {
  const client = useQueryClient()
  const denied = useDenied('key:manage')
  const [asked, setAsked] = useState<'rotate' | 'revoke'>()
  const close = (open: boolean) => !open && setAsked(undefined)
  const { key, state, maker } = row
  const actions = key.scope?.actions ?? []
  const resources = key.scope?.resources ?? []
  const credentials = key.scope?.credentials ?? []
  return (
    <>
      <Drawer
        open
        onOpenChange={(open) => !open && onClose()}
        title={<span className="id">{key.name}</span>}
        description={t('An API key. The key itself was shown once, when it was made.')}
        footer={
          <>
            <Button
              disabledReason={denied ?? (state === 'revoked' ? t('It is revoked') : undefined)}
              onClick={() => setAsked('rotate')}
            >
              {t('Rotate')}
            </Button>
            <Button
              variant="danger"
              disabledReason={denied ?? (state === 'revoked' ? t('It is revoked already') : undefined)}
              onClick={() => setAsked('revoke')}
            >
              {t('Revoke')}
            </Button>
          </>
        }
      >
        <KeyValueList
          items={[
            [
              t('State'),
              <Status key="1" kind={KIND[state]}>
                {keyStateText(state)}
              </Status>,
            ],
            [
              t('Begins with'),
              <code key="2" className="id">
                {oneLine(key.prefix, 20)}…
              </code>,
            ],
            [t('Role'), roleText(key.role)],
            [
              t('Actions'),
              actions.length === 0 ? (
                t('All of its role')
              ) : (
                <Words key="8" words={actions.map((action) => oneLine(action, 60))} />
              ),
            ],
            [
              t('Servers and toolsets'),
              resources.length === 0 ? (
                t('All')
              ) : (
                <Words key="9" words={resources.map((name) => oneLine(name, 60))} />
              ),
            ],
            [
              t('Credentials to bind'),
              credentials.length === 0 ? (
                resources.length === 0 ? (
                  t('All')
                ) : (
                  t('None')
                )
              ) : (
                <Words key="10" words={credentials.map((name) => oneLine(name, 60))} />
              ),
            ],
            [t('Made by'), maker],
            [t('Made'), <RelativeTime key="3" at={key.created_at} />],
            [
              t('Rotated'),
              key.rotated_at == null ? undefined : <RelativeTime key="11" at={key.rotated_at} />,
            ],
            [
              t('Last used'),
              key.last_used_at == null ? t('Not yet') : <RelativeTime key="5" at={key.last_used_at} />,
            ],
            [
              t('Expires'),
              key.expires_at == null ? t('Never') : <RelativeTime key="6" at={key.expires_at} />,
            ],
            [t('Revoked'), key.revoked_at == null ? undefined : <RelativeTime key="7" at={key.revoked_at} />],
            [
              t('Id'),
              <code key="4" className="id">
                {key.id}
              </code>,
            ],
          ]}
        />
      </Drawer>
      {asked === 'rotate' && (
        <RotateKeyDialog apiKey={key} state={state} onClose={() => setAsked(undefined)} />
      )}
      {asked === 'revoke' && (
        <ConfirmDialog
          open
          onOpenChange={close}
          title={t('Revoke {name}?', { name: key.name })}
          confirm={t('Revoke')}
          danger
          onConfirm={async () => {
            await callToChange(
              deleteKey,
              { path: { id: key.id } },
              t('It is not known whether {name} was revoked', { name: key.name }),
            )
            await invalidate(client, listKeys)
            toast.done({ title: t('{name} no longer works', { name: key.name }) })
          }}
        >
          <div className="flex flex-col gap-3">
            <p>
              {t(
                'Whatever uses it is refused within a second. This cannot be undone; a new key can be made.',
              )}
            </p>
            <MadeKeys maker={`api_key:${key.id}`} title={(keys) => t('Ends with it: {keys}', { keys })} />
          </div>
        </ConfirmDialog>
      )}
    </>
  )
}

function Words({ words }: { words: readonly string[] }) {
  return (
    <ul>
      {words.map((word) => (
        <li key={word} className="id">
          {word}
        </li>
      ))}
    </ul>
  )
}
