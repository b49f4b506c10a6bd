import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { Ellipsis, FlaskConical, Layers, Pencil, Plug, Trash2 } from 'lucide-react'
import { useState } from 'react'
import type { Toolset } from '@/api/generated/types'
import { useDenied, useForbidden } from '@/api/session'
import { toolsetsQuery } from '@/features/mcp/public/target-list'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { ButtonLink, Link } from '@/ui/link'
import { Menu } from '@/ui/menu'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { type Column, Table } from '@/ui/table'
import { DeleteToolset } from '../delete-toolset'

/** What the page's address says. */
export interface ToolsetsSearch {
  search?: string | undefined
  sort?: string | undefined
  descending?: boolean | undefined
}

const COLUMNS: ReadonlyArray<Column<Toolset>> = [
  {
    id: 'name',
    header: t('Name'),
    compare: (one, other) => one.name.localeCompare(other.name),
    cell: (toolset) => (
      <Link
        to="/toolsets/$name"
        params={{ name: toolset.name }}
        className="id font-medium text-text hover:text-accent"
      >
        {toolset.name}
      </Link>
    ),
  },
  {
    id: 'description',
    header: t('Description'),
    from: 'lg',
    cell: (toolset) => (
      <span className="text-muted" title={oneLine(toolset.description)}>
        {oneLine(toolset.description) || '–'}
      </span>
    ),
  },
  {
    id: 'servers',
    header: t('Servers'),
    from: 'sm',
    compare: (one, other) => one.members.length - other.members.length,
    cell: (toolset) => (
      <span className="id text-muted">
        {toolset.members.map((member) => member.server).join(', ') || '–'}
      </span>
    ),
  },
  {
    id: 'tools',
    header: t('Tools'),
    width: '9rem',
    from: 'md',
    cell: (toolset) => <span className="text-muted">{toolsText(toolset)}</span>,
  },
  {
    id: 'changed',
    header: t('Changed'),
    width: '7.5rem',
    align: 'end',
    from: 'sm',
    compare: (one, other) => other.updated_at.localeCompare(one.updated_at),
    cell: (toolset) => <RelativeTime at={toolset.updated_at} className="text-muted" />,
  },
  {
    id: 'menu',
    header: t('Actions'),
    hideHeader: true,
    width: '3.5rem',
    align: 'end',
    cell: (toolset) => <ToolsetMenu toolset={toolset} />,
  },
]

/** How many tools it has, as far as that is fixed. */
function toolsText(toolset: Toolset): string {
  const chosen = toolset.members.reduce((sum, member) => sum + (member.tools?.length ?? 0), 0)
  const whole = toolset.members.filter((member) => member.tools == null).length
  if (whole === 0) return plural(chosen, '{count} chosen', '{count} chosen')
  const all = whole === toolset.members.length ? t('all') : plural(whole, 'all of {count}', 'all of {count}')
  return chosen === 0 ? all : t('{chosen} and {all}', { chosen: formatNumber(chosen), all })
}

/** The list of toolsets. */
export function ToolsetsPage({
  search,
  onSearchChange,
}: {
  search: ToolsetsSearch
  onSearchChange: (changes: ToolsetsSearch) => void
}) {
  const { data } = useSuspenseQuery(toolsetsQuery)
  const denied = useDenied('toolset:manage')
  const text = (search.search ?? '').trim().toLowerCase()
  const shown = data.items.filter(
    (one) =>
      one.name.includes(text) ||
      one.description.toLowerCase().includes(text) ||
      one.members.some((member) => member.server.includes(text)),
  )
  const create =
    denied === undefined ? (
      <ButtonLink to="/toolsets/new" variant="primary">
        {t('New toolset')}
      </ButtonLink>
    ) : (
      <Button variant="primary" disabledReason={denied}>
        {t('New toolset')}
      </Button>
    )
  return (
    <>
      <PageHeader
        title={t('Toolsets')}
        meta={<span className="tabular text-muted">{formatNumber(data.items.length)}</span>}
        actions={data.items.length > 0 && create}
      >
        {t(
          'A toolset is one address with chosen tools of several servers, so that a client gets only what it needs.',
        )}
      </PageHeader>
      {data.items.length === 0 ? (
        <Card>
          <EmptyState icon={Layers} title={t('No toolsets yet')} action={create}>
            {t(
              'Every tool that a client sees takes space in its model’s context. Choose the ones that it needs.',
            )}
          </EmptyState>
        </Card>
      ) : (
        <>
          <div className="mb-3">
            <SearchInput
              label={t('Search toolsets')}
              placeholder={t('Name, description or server')}
              value={search.search ?? ''}
              onValueChange={(next) => onSearchChange({ search: next || undefined })}
              className="max-w-none sm:max-w-xs"
            />
          </div>
          <Card flush className="overflow-clip">
            <Table
              label={t('Toolsets')}
              rows={shown}
              columns={COLUMNS}
              rowKey={(toolset) => toolset.name}
              sort={{ column: search.sort ?? 'name', descending: search.descending ?? false }}
              onSortChange={({ column, descending }) =>
                onSearchChange({ sort: column, descending: descending || undefined })
              }
              empty={
                <EmptyState
                  title={t('No toolset fits')}
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
    </>
  )
}

function ToolsetMenu({ toolset }: { toolset: Toolset }) {
  const navigate = useNavigate()
  const queryClient = useQueryClient()
  const denied = useDenied('toolset:manage')
  const unusable = useForbidden('tool:call')
  const [deleting, setDeleting] = useState(false)
  const { name } = toolset
  return (
    <>
      <Menu
        trigger={<IconButton icon={Ellipsis} label={t('Actions for {name}', { name })} size="small" />}
        items={[
          {
            label: denied === undefined ? t('Edit') : t('Open'),
            icon: denied === undefined ? Pencil : Layers,
            onSelect: () => void navigate({ to: '/toolsets/$name', params: { name } }),
          },
          {
            label: t('Try in the playground'),
            icon: FlaskConical,
            disabledReason: unusable,
            onSelect: () => void navigate({ to: '/playground/$name', params: { name } }),
          },
          {
            label: t('Connect a client'),
            icon: Plug,
            onSelect: () => void navigate({ to: '/connect/$name', params: { name } }),
          },
          {
            label: t('Delete'),
            icon: Trash2,
            danger: true,
            separated: true,
            disabledReason: denied,
            onSelect: () => setDeleting(true),
          },
        ]}
      />
      <DeleteToolset
        name={name}
        open={deleting}
        onOpenChange={setDeleting}
        onDeleted={() => void queryClient.invalidateQueries(toolsetsQuery)}
      />
    </>
  )
}
