import { useSuspenseInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import { ChevronRight, Server as ServerIcon } from 'lucide-react'
import { useState } from 'react'
import { listToolsets } from '@/api/generated/toolsets'
import { q } from '@/api/queries'
import { ServerStatus } from '@/features/servers/public/phase'
import { serversQuery } from '@/features/servers/public/queries'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Card } from '@/ui/card'
import { Combobox } from '@/ui/combobox'
import { EmptyState } from '@/ui/empty-state'
import { LetterTile } from '@/ui/letter-tile'
import { ButtonLink, PlainLink } from '@/ui/link'
import { SearchInput } from '@/ui/search-input'

/** Pages about one server or toolset. */
type TargetPage = '/playground/$name' | '/connect/$name'

/** All toolsets, by name. */
export const toolsetsQuery = q(listToolsets, { query: { limit: 500 } })

/** More servers than this are found by typing. */
const MOST_SHOWN = 60

/** Servers and toolsets to choose from, each a link to a page about it. */
export function TargetList({ to }: { to: TargetPage }) {
  const { data: toolsets } = useSuspenseQuery(toolsetsQuery)
  const { data: servers } = useSuspenseInfiniteQuery(serversQuery)
  const [search, setSearch] = useState('')
  const wanted = search.trim().toLowerCase()
  const all = servers.pages.flatMap((page) => page.items)
  const fitting = all
    .filter((server) => server.name.includes(wanted))
    // Those that answer come first.
    .toSorted((one, other) => Number(other.phase === 'ready') - Number(one.phase === 'ready'))
  const sets = toolsets.items.filter((toolset) => toolset.name.includes(wanted))
  if (all.length === 0 && toolsets.items.length === 0) {
    return (
      <Card>
        <EmptyState
          icon={ServerIcon}
          title={t('No servers yet')}
          action={
            <ButtonLink to="/marketplace" variant="primary">
              {t('Find a server')}
            </ButtonLink>
          }
        >
          {t('Deploy a server first; then its tools can be tried here and used by clients.')}
        </EmptyState>
      </Card>
    )
  }
  return (
    <div className="flex flex-col gap-4">
      {all.length + toolsets.items.length > 8 && (
        <SearchInput
          label={t('Search servers and toolsets')}
          placeholder={t('Name')}
          value={search}
          onValueChange={setSearch}
        />
      )}
      {sets.length > 0 && (
        <Card title={t('Toolsets')} flush>
          <ul>
            {sets.map((toolset) => (
              <TargetRow
                key={toolset.name}
                to={to}
                name={toolset.name}
                about={
                  oneLine(toolset.description, 160) ||
                  plural(toolset.members.length, '{count} server', '{count} servers')
                }
              />
            ))}
          </ul>
        </Card>
      )}
      {fitting.length > 0 && (
        <Card title={t('Servers')} flush>
          <ul>
            {fitting.slice(0, MOST_SHOWN).map((server) => (
              <TargetRow
                key={server.name}
                to={to}
                name={server.name}
                about={oneLine(server.entry?.name, 160) || server.kind}
                status={<ServerStatus server={server} />}
              />
            ))}
          </ul>
          {fitting.length > MOST_SHOWN && (
            <p className="border-t px-pad py-2 text-sm text-muted">{t('Type to find the others.')}</p>
          )}
        </Card>
      )}
      {sets.length + fitting.length === 0 && (
        <Card>
          <EmptyState title={t('Nothing fits')}>{t('Change the search.')}</EmptyState>
        </Card>
      )}
    </div>
  )
}

function TargetRow({
  to,
  name,
  about,
  status,
}: {
  to: TargetPage
  name: string
  about: string
  status?: React.ReactNode
}) {
  return (
    <li className="border-b last:border-b-0">
      <PlainLink to={to} params={{ name }} className="flex items-center gap-3 px-pad py-2.5 hover:bg-hover">
        <LetterTile name={name} />
        <span className="min-w-0 flex-1">
          <span className="id block truncate font-medium">{name}</span>
          <span className="block truncate text-sm text-muted">{about}</span>
        </span>
        {status}
        <ChevronRight aria-hidden="true" className="size-4 shrink-0 text-faint" />
      </PlainLink>
    </li>
  )
}

/** Goes from one server or toolset to another on pages about one. */
export function TargetSwitch({ name, onChange }: { name: string; onChange: (name: string) => void }) {
  const { data: toolsets } = useSuspenseQuery(toolsetsQuery)
  const { data: servers } = useSuspenseInfiniteQuery(serversQuery)
  const options = [
    ...toolsets.items.map((one) => ({ value: one.name, label: one.name, hint: t('Toolset') })),
    ...servers.pages
      .flatMap((page) => page.items)
      .map((one) => ({ value: one.name, label: one.name, hint: t('Server') })),
  ]
  return (
    <Combobox
      id="target"
      label={t('Server or toolset')}
      hideLabel
      mono
      className="w-56"
      value={name}
      options={options}
      onValueChange={(next) => next !== '' && next !== name && onChange(next)}
    />
  )
}
