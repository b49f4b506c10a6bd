import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query'
import { ClipboardCheck, Link2, PackageSearch, Upload } from 'lucide-react'
import { useDeferredValue, useEffect, useState } from 'react'
import { listCategories, listSources } from '@/api/generated/catalog'
import type { EntrySummary } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useSession } from '@/api/session'
import { formatCompact } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { ErrorState } from '@/ui/error-state'
import { FilterChips } from '@/ui/filter-chips'
import { LetterTile } from '@/ui/letter-tile'
import { ButtonLink, PlainLink } from '@/ui/link'
import { LoadMore } from '@/ui/load-more'
import { PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { SearchInput } from '@/ui/search-input'
import { Select } from '@/ui/select'
import { Skeleton } from '@/ui/skeleton'
import {
  entryParams,
  entryTitle,
  KindBadges,
  kindText,
  Rating,
  StatusBadge,
  VerifiedMark,
} from './entry-parts'
import { entriesQuery, type MarketplaceSearch, submittedQuery } from './queries'

const KINDS = ['npm', 'pypi', 'oci', 'remote'] as const
/** So many categories are shown before the others are asked for. */
const FIRST_CATEGORIES = 10
/** So long after the last key the search is sent. */
const PAUSE_MS = 120

/** Finds a server among the catalog's entries. */
export function MarketplacePage({
  search,
  onSearchChange,
}: {
  search: MarketplaceSearch
  onSearchChange: (changes: MarketplaceSearch) => void
}) {
  const session = useSession()
  const wanted = usePaused(search)
  const entries = useInfiniteQuery({ ...entriesQuery(wanted), placeholderData: keepPreviousData })
  const items = entries.data?.pages.flatMap((page) => page.items) ?? []
  const filtered = Object.entries(search).some(
    ([name, value]) => name !== 'sort' && value !== undefined && value !== '',
  )
  const clear = () =>
    onSearchChange({
      search: undefined,
      category: undefined,
      kind: undefined,
      source: undefined,
      verified: undefined,
    })
  return (
    <>
      <PageHeader
        title={t('Marketplace')}
        actions={
          <>
            {may(session, 'catalog:review') && <ReviewLink />}
            {may(session, 'catalog:submit') && (
              <ButtonLink to="/marketplace/publish" icon={Upload}>
                {t('Publish')}
              </ButtonLink>
            )}
            {may(session, 'server:deploy') && (
              <ButtonLink to="/deploy" icon={Link2}>
                {t('Register by address')}
              </ButtonLink>
            )}
          </>
        }
      >
        {t('MCP servers that you can deploy, from the sources of this organization.')}
      </PageHeader>
      <Filters search={search} onSearchChange={onSearchChange} />
      {entries.error !== null && entries.data === undefined ? (
        <Card flush>
          <ErrorState
            error={entries.error}
            onRetry={() => void entries.refetch()}
            retrying={entries.isFetching}
          />
        </Card>
      ) : entries.data === undefined ? (
        <CardGrid label={t('Loading')}>
          {Array.from({ length: 12 }, (_, place) => place).map((place) => (
            <li key={place}>
              <EntryCardSkeleton />
            </li>
          ))}
        </CardGrid>
      ) : items.length === 0 ? (
        <Card>
          <EmptyState
            icon={PackageSearch}
            title={filtered ? t('No entry fits') : t('The catalog is empty')}
            action={filtered && <Button onClick={clear}>{t('Clear search and filters')}</Button>}
          >
            {filtered
              ? t('Search for another word, or take a filter away.')
              : t('Add a catalog source in the settings, or publish an entry of your own.')}
          </EmptyState>
        </Card>
      ) : (
        <>
          <CardGrid label={t('Entries')} busy={entries.isPlaceholderData}>
            {items.map((entry) => (
              <li key={`${entry.source} ${entry.name}`} className="min-w-0">
                <EntryCard entry={entry} />
              </li>
            ))}
          </CardGrid>
          <LoadMore
            query={entries}
            shown={
              entries.hasNextPage
                ? plural(items.length, '{count} entry so far', '{count} entries so far')
                : plural(items.length, '{count} entry', '{count} entries')
            }
          />
        </>
      )}
    </>
  )
}

/** The search, once typing paused; everything else at once. */
function usePaused(search: MarketplaceSearch): MarketplaceSearch {
  const [text, setText] = useState(search.search)
  useEffect(() => {
    const timer = setTimeout(() => setText(search.search), PAUSE_MS)
    return () => clearTimeout(timer)
  }, [search.search])
  return useDeferredValue({ ...search, search: text })
}

function ReviewLink() {
  const { data } = useQuery(submittedQuery)
  const waiting = data?.items.length ?? 0
  return (
    <ButtonLink to="/marketplace/review" icon={ClipboardCheck}>
      {t('Review')}
      {waiting > 0 && <Badge tone="accent">{data?.next_cursor ? `${waiting}+` : waiting}</Badge>}
    </ButtonLink>
  )
}

function Filters({
  search,
  onSearchChange,
}: {
  search: MarketplaceSearch
  onSearchChange: (changes: MarketplaceSearch) => void
}) {
  const sources = useQuery(q(listSources, {}))
  const named = sources.data?.items.filter((source) => source.entries > 0) ?? []
  const text = search.search?.trim() ?? ''
  return (
    <div className="mb-4 flex flex-col gap-3">
      <div className="grid grid-cols-2 gap-2 md:flex md:flex-wrap md:items-center">
        <SearchInput
          className="relative col-span-2 w-full md:max-w-md md:flex-1"
          label={t('Search the marketplace')}
          placeholder={t('Search by name, task or tag')}
          value={search.search ?? ''}
          onValueChange={(value) => onSearchChange({ search: value || undefined })}
        />
        <Select
          id="marketplace-kind"
          label={t('Kind')}
          hideLabel
          className="md:w-36"
          value={search.kind ?? ''}
          options={[
            { value: '', label: t('Every kind') },
            ...KINDS.map((kind) => ({ value: kind, label: kindText(kind) })),
          ]}
          onValueChange={(kind) => onSearchChange({ kind: kind || undefined })}
        />
        <Select
          id="marketplace-source"
          label={t('Source')}
          hideLabel
          className="md:w-40"
          value={search.source ?? ''}
          options={[
            { value: '', label: t('Every source') },
            // A source that the address names stays an option while the sources load.
            ...(search.source !== undefined && !named.some((source) => source.name === search.source)
              ? [{ value: search.source, label: oneLine(search.source, 40) }]
              : []),
            ...named.map((source) => ({ value: source.name, label: source.name })),
          ]}
          onValueChange={(source) => onSearchChange({ source: source || undefined })}
        />
        <Select
          id="marketplace-verified"
          label={t('Verification')}
          hideLabel
          className="md:w-44"
          value={search.verified === undefined ? '' : search.verified ? 'yes' : 'no'}
          options={[
            { value: '', label: t('Verified or not') },
            { value: 'yes', label: t('Verified') },
            { value: 'no', label: t('Not verified') },
          ]}
          onValueChange={(value) => onSearchChange({ verified: value === '' ? undefined : value === 'yes' })}
        />
        <Select
          id="marketplace-sort"
          label={t('Order')}
          hideLabel
          className="md:ml-auto md:w-52"
          value={search.sort ?? ''}
          options={[
            { value: '', label: text === '' ? t('Most deployed here') : t('Best match') },
            ...(text === '' ? [] : [{ value: 'deployments', label: t('Most deployed here') }]),
            { value: 'rating', label: t('Best rated') },
            { value: 'updated', label: t('Last updated') },
            { value: 'name', label: t('By name') },
          ]}
          onValueChange={(sort) => onSearchChange({ sort: sort || undefined })}
        />
      </div>
      <Categories chosen={search.category} onChange={(category) => onSearchChange({ category })} />
    </div>
  )
}

function Categories({
  chosen,
  onChange,
}: {
  chosen: string | undefined
  onChange: (category: string | undefined) => void
}) {
  const [all, setAll] = useState(false)
  const { data } = useQuery(q(listCategories, {}))
  if (data === undefined) return <Skeleton className="h-control-small w-full max-w-3xl" />
  const ordered = data.items.toSorted(
    (one, other) => other.entries - one.entries || one.name.localeCompare(other.name),
  )
  const shown = ordered.filter((one, place) => all || place < FIRST_CATEGORIES || one.name === chosen)
  if (ordered.length === 0) return null
  return (
    <div className="flex items-start gap-1.5 max-sm:-mx-4 max-sm:overflow-x-auto max-sm:px-4 max-sm:py-1 max-sm:[&>div]:flex-nowrap max-sm:[&_button]:shrink-0">
      <FilterChips
        label={t('Category')}
        chosen={chosen === undefined ? [] : [chosen]}
        options={shown.map((one) => ({ value: one.name, label: oneLine(one.name, 40), count: one.entries }))}
        onChange={([category]) => onChange(category)}
      />
      {ordered.length > FIRST_CATEGORIES && (
        <Button size="small" variant="ghost" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? t('Fewer') : t('All {count}', { count: ordered.length })}
        </Button>
      )}
    </div>
  )
}

function CardGrid({
  label,
  busy = false,
  children,
}: {
  label: string
  busy?: boolean
  children: React.ReactNode
}) {
  return (
    <ul
      aria-label={label}
      aria-busy={busy}
      className="grid grid-cols-[repeat(auto-fill,minmax(min(100%,19rem),1fr))] gap-3"
    >
      {children}
    </ul>
  )
}

function EntryCard({ entry }: { entry: EntrySummary }) {
  return (
    <article className="group relative flex h-full min-h-40 flex-col gap-2.5 rounded-lg border bg-surface p-4 transition-colors hover:border-line-strong">
      <div className="flex items-start gap-3">
        <LetterTile name={entryTitle(entry)} />
        <div className="min-w-0 flex-1">
          <div className="flex items-center gap-1.5">
            <h2 className="min-w-0 truncate font-semibold">
              <PlainLink
                to="/marketplace/$namespace/$name"
                params={entryParams(entry.name)}
                className="rounded-lg after:absolute after:inset-0 after:rounded-lg focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:outline-offset-2"
              >
                {entryTitle(entry)}
              </PlainLink>
            </h2>
            <VerifiedMark by={entry.verified_by} />
            <StatusBadge status={entry.status} />
          </div>
          <p className="id truncate text-muted" title={entry.name}>
            {entry.name}
          </p>
        </div>
      </div>
      <p className="line-clamp-2 min-h-10 text-muted">{oneLine(entry.description, 240)}</p>
      <div className="mt-auto flex flex-wrap items-center gap-x-3 gap-y-1.5 text-sm text-muted">
        <span className="flex gap-1">
          <KindBadges kinds={entry.kinds} />
        </span>
        <Rating rating={entry.rating} ratings={entry.ratings} />
        {entry.deployments > 0 && (
          <span>
            {plural(entry.deployments, '{count} server here', '{count} servers here', {
              count: formatCompact(entry.deployments),
            })}
          </span>
        )}
        <RelativeTime at={entry.updated_at} className="ml-auto text-faint" />
      </div>
    </article>
  )
}

function EntryCardSkeleton() {
  return (
    <div className="flex min-h-40 flex-col gap-2.5 rounded-lg border bg-surface p-4">
      <div className="flex gap-3">
        <Skeleton className="size-9 rounded-lg" />
        <div className="flex-1 py-1">
          <Skeleton className="h-3.5 w-2/5" />
          <Skeleton className="mt-2.5 h-3 w-4/5" />
        </div>
      </div>
      <Skeleton className="mt-1 h-3 w-full" />
      <Skeleton className="h-3 w-3/5" />
      <Skeleton className="mt-auto h-4 w-24" />
    </div>
  )
}
