import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { Ellipsis, KeyRound, Shield, Trash2, UserPlus } from 'lucide-react'
import { useDeferredValue, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { deleteMember, listMembers } from '@/api/generated/members'
import type { Member } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { useDenied, useSession } from '@/api/session'
import { MadeKeys } from '@/features/account/public/made-keys'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { ConfirmDialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { Menu } from '@/ui/menu'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { type Column, Table, UNTIL } from '@/ui/table'
import { toast } from '@/ui/toast'
import { AddMemberDialog, PasswordDialog, RoleDialog } from '../member-dialogs'
import { compareRoles, roleHint, roleText } from '../roles'
import { membersQuery } from './queries'

/** What the page's address says. */
export interface MembersSearch {
  search?: string | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

const COLUMNS: ReadonlyArray<Column<Member>> = [
  {
    id: 'email',
    header: t('Email'),
    compare: (one, other) => one.email.localeCompare(other.email),
    cell: (member) => (
      <>
        <Email member={member} />
        <span className={`block text-sm text-muted ${UNTIL.xs}`}>{roleText(member.role)}</span>
      </>
    ),
  },
  {
    id: 'role',
    header: t('Role'),
    width: '6.75rem',
    from: 'xs',
    compare: (one, other) => compareRoles(one.role, other.role),
    cell: (member) => <span title={roleHint(member.role)}>{roleText(member.role)}</span>,
  },
  {
    id: 'signed-in',
    header: t('Last sign-in'),
    width: '9.5rem',
    from: 'sm',
    compare: (one, other) => (other.last_sign_in_at ?? '').localeCompare(one.last_sign_in_at ?? ''),
    cell: (member) =>
      member.last_sign_in_at == null ? (
        <span className="text-faint">{t('Not yet')}</span>
      ) : (
        <RelativeTime at={member.last_sign_in_at} className="text-muted" />
      ),
  },
  {
    id: 'since',
    header: t('Member since'),
    width: '9.5rem',
    from: 'md',
    compare: (one, other) => other.created_at.localeCompare(one.created_at),
    cell: (member) => <RelativeTime at={member.created_at} className="text-muted" />,
  },
  {
    id: 'menu',
    header: t('Actions'),
    hideHeader: true,
    width: '3.5rem',
    align: 'end',
    cell: (member) => <MemberMenu member={member} />,
  },
]

function Email({ member }: { member: Member }) {
  const session = useSession()
  return (
    <span className="flex min-w-0 items-center gap-2">
      <span className="truncate font-medium" title={oneLine(member.email)}>
        {oneLine(member.email)}
      </span>
      {session.kind === 'user' && session.display === member.email && (
        <span className="flex shrink-0 max-sm:hidden">
          <Badge>{t('you')}</Badge>
        </span>
      )}
    </span>
  )
}

/** The people of the organization: their roles, and who joins and leaves. */
export function MembersPage({
  search,
  onSearchChange,
}: {
  search: MembersSearch
  onSearchChange: (changes: MembersSearch) => void
}) {
  const { data } = useSuspenseQuery(membersQuery)
  const denied = useDenied('member:manage')
  const [adding, setAdding] = useState(false)
  const wanted = useDeferredValue(search.search ?? '')
    .trim()
    .toLowerCase()
  const shown = data.items.filter((member) =>
    `${member.email} ${roleText(member.role)}`.toLowerCase().includes(wanted),
  )
  return (
    <>
      <div className="mb-3 flex flex-wrap items-center gap-2">
        <SearchInput
          label={t('Search members')}
          placeholder={t('Email or role')}
          value={search.search ?? ''}
          onValueChange={(text) => onSearchChange({ search: text || undefined })}
        />
        <span role="status" className="tabular text-sm text-muted">
          {wanted === ''
            ? plural(data.items.length, '{count} member', '{count} members')
            : t('{shown} of {all} members', {
                shown: formatNumber(shown.length),
                all: formatNumber(data.items.length),
              })}
        </span>
        <Button
          variant="primary"
          icon={UserPlus}
          disabledReason={denied}
          onClick={() => setAdding(true)}
          className="ml-auto"
        >
          {t('Add a member')}
        </Button>
      </div>
      <Card flush className="overflow-clip">
        <Table
          label={t('Members')}
          rows={shown}
          columns={COLUMNS}
          rowKey={(member) => member.id}
          sort={{ column: search.sort ?? 'email', descending: search.descending ?? false }}
          onSortChange={({ column, descending }) =>
            onSearchChange({ sort: column, descending: descending || undefined })
          }
          empty={
            <EmptyState
              title={t('No member fits')}
              action={
                <Button onClick={() => onSearchChange({ search: undefined })}>{t('Clear the search')}</Button>
              }
            />
          }
        />
      </Card>
      {adding && <AddMemberDialog onClose={() => setAdding(false)} />}
    </>
  )
}

function MemberMenu({ member }: { member: Member }) {
  const client = useQueryClient()
  const session = useSession()
  const [asked, setAsked] = useState<'role' | 'password' | 'remove'>()
  const managed = useDenied('member:manage')
  const denied =
    managed ??
    (member.role === 'owner' && session.role !== 'owner' ? t('Only owners change owners') : undefined)
  const self = session.kind === 'user' && session.display === member.email
  const name = oneLine(member.email)
  const close = (open: boolean) => !open && setAsked(undefined)
  return (
    <>
      <Menu
        trigger={<IconButton icon={Ellipsis} label={t('Actions for {name}', { name })} size="small" />}
        items={[
          {
            label: t('Change the role'),
            icon: Shield,
            onSelect: () => setAsked('role'),
            disabledReason: denied,
          },
          {
            label: t('Give a new password'),
            icon: KeyRound,
            onSelect: () => setAsked('password'),
            disabledReason: denied,
          },
          {
            label: t('Remove'),
            icon: Trash2,
            onSelect: () => setAsked('remove'),
            disabledReason: denied,
            danger: true,
            separated: true,
          },
        ]}
      />
      {asked === 'role' && <RoleDialog member={member} onOpenChange={close} />}
      {asked === 'password' && <PasswordDialog member={member} self={self} onOpenChange={close} />}
      {asked === 'remove' && (
        <ConfirmDialog
          open
          onOpenChange={close}
          title={t('Remove {name}?', { name })}
          confirm={t('Remove')}
          danger
          onConfirm={async () => {
            await callToChange(
              deleteMember,
              { path: { id: member.id } },
              t('It is not known whether {name} was removed', { name }),
            )
            await invalidate(client, listMembers)
            toast.done({ title: t('{name} is no longer a member', { name }) })
          }}
        >
          {self
            ? t('You are signed out, and the API keys that you made stop working.')
            : t(
                'They are signed out, and the API keys that they made stop working. Their servers keep running.',
              )}
          <div className="mt-3">
            <MadeKeys maker={`user:${member.id}`} title={(keys) => t('This ends {keys}:', { keys })} />
          </div>
        </ConfirmDialog>
      )}
    </>
  )
}
