import {
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
  useSuspenseQuery,
} from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { BadgeCheck, FilePen, Globe, GlobeLock, MoreHorizontal, Rocket, Trash2 } from 'lucide-react'
import { type ReactNode, useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { deleteEntry, getEntry, listEntries, updateEntry } from '@/api/generated/catalog'
import { listServers } from '@/api/generated/servers'
import type { Entry, Package, Transport, UpdateEntry } from '@/api/generated/types'
import { invalidate, qPages } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { declaredInputs, type InputField, offers } from '@/features/servers/public/inputs'
import { ServerStatus } from '@/features/servers/public/phase'
import { formatNumber } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { CopyButton } from '@/ui/copy-button'
import { ConfirmDialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { KeyValueList } from '@/ui/key-value-list'
import { LetterTile } from '@/ui/letter-tile'
import { ButtonLink, ExternalLink, Link } from '@/ui/link'
import { Markdown } from '@/ui/markdown'
import { Menu } from '@/ui/menu'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Panel } from '@/ui/panel'
import { RelativeTime } from '@/ui/relative-time'
import { Select } from '@/ui/select'
import { toast } from '@/ui/toast'
import { useWholeList } from '@/ui/use-whole-list'
import { deployedOf } from '../deployed'
import {
  entryParams,
  entryTitle,
  KindBadges,
  kindText,
  Rating,
  readmeOf,
  StatusBadge,
  undeployable,
  VerifiedMark,
  verification,
} from './entry-parts'
import { entryQuery, versionsQuery } from './queries'
import { RateEntry } from './rate-entry'

/** What one entry is, how it can run, what it needs, and where it comes from. */
export function EntryPage({
  name,
  version,
  onVersionChange,
}: {
  name: string
  version: string | undefined
  onVersionChange: (version: string | undefined) => void
}) {
  const { data: entry } = useSuspenseQuery(entryQuery(name, version))
  const readme = readmeOf(entry)
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/marketplace">{t('Marketplace')}</Link>
          </Breadcrumbs>
        }
        title={
          <span className="inline-flex items-center gap-3">
            <LetterTile name={entryTitle(entry)} />
            {entryTitle(entry)}
          </span>
        }
        meta={
          <>
            <VerifiedMark by={entry.verified_by} />
            <StatusBadge status={entry.status} />
            {entry.review !== 'approved' && <Badge tone="warn">{reviewText(entry.review)}</Badge>}
          </>
        }
        actions={
          <>
            <NextVersion entry={entry} />
            <EntryMenu entry={entry} />
            <DeployButton entry={entry} version={version} />
          </>
        }
      >
        <span className="inline-flex max-w-full items-center gap-1">
          <code className="id truncate">{entry.name}</code>
          <CopyButton text={entry.name} label={t('Copy the name')} />
        </span>
      </PageHeader>
      <Notices entry={entry} />
      <div className="grid items-start gap-4 lg:grid-cols-[minmax(0,1fr)_20rem]">
        <div className="flex min-w-0 flex-col gap-4">
          <Card title={t('About')}>
            <p className="max-w-prose whitespace-pre-line">{plainText(entry.description, 4000)}</p>
          </Card>
          <Card title={t('How it runs')} flush>
            <Choices entry={entry} />
          </Card>
          {readme !== undefined && (
            <Card title={t('Read me')}>
              <Markdown text={readme} />
            </Card>
          )}
        </div>
        <div className="flex min-w-0 flex-col gap-4">
          <Facts entry={entry} version={version} onVersionChange={onVersionChange} />
          <RateEntry entry={entry} />
          <Deployed entry={entry} />
        </div>
      </div>
    </>
  )
}

function reviewText(review: string): string {
  if (review === 'submitted') return t('Waiting for review')
  if (review === 'rejected') return t('Rejected')
  return oneLine(review, 20)
}

function Notices({ entry }: { entry: Entry }) {
  const notices: ReactNode[] = []
  if (entry.status !== 'active') {
    notices.push(
      <Notice key="status" tone={entry.status === 'deleted' ? 'bad' : 'warn'}>
        {entry.status === 'deleted'
          ? t('The publisher deleted this entry. Servers that came from it run on.')
          : t('The publisher does not maintain this entry any more.')}{' '}
        {oneLine(entry.status_message, 300)}
      </Notice>,
    )
  }
  if (entry.review === 'rejected') {
    notices.push(
      <Notice key="review" tone="bad">
        {t('A reviewer rejected this entry: {reason}', { reason: oneLine(entry.review_reason, 500) })}
      </Notice>,
    )
  }
  if (entry.review === 'submitted') {
    notices.push(
      <Notice key="review">
        {t('This entry waits for a review. It is not in the marketplace until somebody approves it.')}
      </Notice>,
    )
  }
  return notices.length === 0 ? null : <div className="mb-4 flex flex-col gap-2">{notices}</div>
}

function DeployButton({ entry, version }: { entry: Entry; version: string | undefined }) {
  const denied = useDenied('server:deploy')
  const reason = denied ?? undeployable(entry)
  if (reason !== undefined) {
    return (
      <Button variant="primary" icon={Rocket} disabledReason={reason}>
        {t('Deploy')}
      </Button>
    )
  }
  return (
    <ButtonLink
      variant="primary"
      icon={Rocket}
      to="/deploy/$namespace/$name"
      params={entryParams(entry.name)}
      search={version === undefined ? {} : { version }}
    >
      {t('Deploy')}
    </ButtonLink>
  )
}

/** From an entry of one's own to its next document. */
function NextVersion({ entry }: { entry: Entry }) {
  const session = useSession()
  if (entry.source !== 'own' || !may(session, 'catalog:submit')) return null
  // Of an approved entry a reviewer publishes the next version.
  if (entry.review === 'approved' && !may(session, 'catalog:review')) return null
  return (
    <ButtonLink to="/marketplace/publish" search={{ from: entry.name }} icon={FilePen}>
      {entry.review === 'rejected' ? t('Correct it') : t('New version')}
    </ButtonLink>
  )
}

/** What reviewers may do with an entry. */
function EntryMenu({ entry }: { entry: Entry }) {
  const session = useSession()
  const queryClient = useQueryClient()
  const navigate = useNavigate()
  const [removing, setRemoving] = useState(false)
  const update = useMutation({
    mutationFn: (body: UpdateEntry) =>
      callToChange(
        updateEntry,
        { path: { name: entry.name }, body },
        t('It is not known whether {name} was changed', { name: entryTitle(entry) }),
      ),
    onSuccess: async () => {
      await Promise.all([invalidate(queryClient, getEntry), invalidate(queryClient, listEntries)])
      toast.done({ title: t('{name} was changed', { name: entryTitle(entry) }) })
    },
    onError: (error) => toast.problem(t('{name} was not changed', { name: entryTitle(entry) }), error),
  })
  if (!may(session, 'catalog:review')) return null
  const own = entry.source === 'own'
  return (
    <>
      <Menu
        trigger={<IconButton icon={MoreHorizontal} label={t('More actions')} variant="secondary" />}
        items={[
          entry.verified_by
            ? {
                label: t('Take the verification away'),
                icon: BadgeCheck,
                onSelect: () => update.mutate({ verified: false }),
              }
            : { label: t('Verify'), icon: BadgeCheck, onSelect: () => update.mutate({ verified: true }) },
          entry.public
            ? {
                label: t('Stop publishing on /v0.1'),
                icon: GlobeLock,
                onSelect: () => update.mutate({ public: false }),
              }
            : {
                label: t('Publish on /v0.1'),
                icon: Globe,
                onSelect: () => update.mutate({ public: true }),
                disabledReason: entry.review === 'approved' ? undefined : t('It is not approved'),
              },
          {
            label: t('Withdraw'),
            icon: Trash2,
            danger: true,
            separated: true,
            onSelect: () => setRemoving(true),
            disabledReason: own
              ? undefined
              : t('It comes from the source {source}', { source: entry.source }),
          },
        ]}
      />
      <ConfirmDialog
        open={removing}
        onOpenChange={setRemoving}
        title={t('Withdraw {name}?', { name: entryTitle(entry) })}
        confirm={t('Withdraw')}
        danger
        onConfirm={async () => {
          await callToChange(
            deleteEntry,
            { path: { name: entry.name } },
            t('It is not known whether {name} was withdrawn', { name: entryTitle(entry) }),
          )
          await navigate({ to: '/marketplace', ignoreBlocker: true })
          toast.done({ title: t('{name} was withdrawn', { name: entryTitle(entry) }) })
        }}
      >
        {t('The entry with all its versions leaves the marketplace. Servers that came from it run on.')}
      </ConfirmDialog>
    </>
  )
}

function Facts({
  entry,
  version,
  onVersionChange,
}: {
  entry: Entry
  version: string | undefined
  onVersionChange: (version: string | undefined) => void
}) {
  const versions = useQuery(versionsQuery(entry.name))
  const listed = versions.data?.items ?? []
  const latest = listed.find((one) => one.latest)?.version
  const shown = version ?? latest ?? entry.version
  const options = listed.map((one) => ({
    value: one.version,
    label:
      oneLine(one.version, 60) +
      (one.latest ? ` · ${t('latest')}` : '') +
      (one.status === 'active' ? '' : ` · ${oneLine(one.status, 20)}`),
    disabled: one.status === 'deleted',
  }))
  const repository = entry.server.repository
  const folder = repository?.subfolder ? oneLine(repository.subfolder, 100) : undefined
  return (
    <Card title={t('Facts')}>
      <div className="flex flex-col gap-4">
        {options.length > 1 ? (
          <Select
            id="entry-version"
            label={t('Version')}
            value={shown}
            options={options}
            onValueChange={(next) => onVersionChange(next === latest ? undefined : next)}
          />
        ) : null}
        <KeyValueList
          items={[
            options.length > 1
              ? ['', undefined]
              : [
                  t('Version'),
                  <code key="v" className="id">
                    {oneLine(entry.version, 60)}
                  </code>,
                ],
            [
              t('Kind'),
              <span key="k" className="flex flex-wrap gap-1">
                <KindBadges kinds={entry.kinds} />
              </span>,
            ],
            [t('Source'), oneLine(entry.source, 60)],
            verification(entry.verified_by),
            [
              t('Categories'),
              entry.categories.length === 0 ? undefined : (
                <span key="c" className="flex flex-wrap gap-x-2">
                  {entry.categories.map((category) => (
                    <Link key={category} to="/marketplace" search={{ category }}>
                      {oneLine(category, 40)}
                    </Link>
                  ))}
                </span>
              ),
            ],
            [
              t('Rating'),
              entry.ratings === 0 ? undefined : (
                <Rating key="r" rating={entry.rating} ratings={entry.ratings} />
              ),
            ],
            [
              t('Repository'),
              repository?.url ? (
                <ExternalLink key="h" href={repository.url} className="max-w-full">
                  <span className="truncate">{shortAddress(repository.url)}</span>
                </ExternalLink>
              ) : undefined,
            ],
            [
              t('Folder'),
              folder === undefined ? undefined : (
                <code key="f" className="id">
                  {folder}
                </code>
              ),
            ],
            [
              t('Website'),
              entry.server.websiteUrl ? (
                <ExternalLink key="s" href={entry.server.websiteUrl} className="max-w-full">
                  <span className="truncate">{shortAddress(entry.server.websiteUrl)}</span>
                </ExternalLink>
              ) : undefined,
            ],
            [t('Updated'), <RelativeTime key="u" at={entry.updated_at} />],
            [t('Public'), entry.public ? t('On /v0.1, without a key') : undefined],
          ]}
        />
      </div>
    </Card>
  )
}

/** An address without its scheme, bounded: what it is stays readable, and the link itself is checked apart. */
function shortAddress(url: string): string {
  return oneLine(url, 120).replace(/^https?:\/\/(www\.)?/, '')
}

function Choices({ entry }: { entry: Entry }) {
  const all = offers(entry.server)
  if (all.length === 0) {
    return <EmptyState title={t('It has no package and no address')} />
  }
  return (
    <ul>
      {all.map((offer, place) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an offer is its place in the document.
        <li key={place} className="border-b p-pad last:border-b-0">
          <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
            <Badge tone={offer.runs ? 'accent' : 'neutral'}>{kindText(offer.kind)}</Badge>
            <code className="id min-w-0 wrap-anywhere">{offerText(offer.package, offer.remote)}</code>
            {!offer.runs && <span className="text-sm text-muted">{offer.why}</span>}
          </div>
          <InputList fields={declaredInputs(offer)} />
        </li>
      ))}
    </ul>
  )
}

function offerText(one: Package | undefined, remote: Transport | undefined): string {
  if (remote !== undefined) return oneLine(remote.url, 300)
  const version = one?.version ? `@${one.version}` : ''
  return oneLine(`${one?.identifier ?? ''}${version}`, 300)
}

function InputList({ fields }: { fields: readonly InputField[] }) {
  if (fields.length === 0) return <p className="mt-2 text-sm text-muted">{t('It needs no settings.')}</p>
  const required = fields.filter((field) => field.required && field.initial === '')
  return (
    <>
      <p className="mt-3 mb-1.5 text-sm text-muted">
        {required.length === 0
          ? plural(
              fields.length,
              '{count} setting, none of them required',
              '{count} settings, none of them required',
            )
          : plural(required.length, '{count} required setting', '{count} required settings')}
      </p>
      <ul className="divide-y rounded-md border">
        {fields.map((field) => (
          <li key={field.key} className="flex flex-wrap items-baseline gap-x-3 gap-y-0.5 px-3 py-2">
            <code className="id font-medium wrap-anywhere">{oneLine(field.key, 100)}</code>
            <span className="flex flex-wrap gap-1">
              {field.required && <Badge tone="accent">{t('required')}</Badge>}
              {field.secret && <Badge tone="warn">{t('secret')}</Badge>}
              {field.repeated && <Badge>{t('several')}</Badge>}
              {field.format !== 'string' && <Badge>{oneLine(field.format, 20)}</Badge>}
            </span>
            {field.description !== '' && (
              <span className="w-full text-sm text-muted">{oneLine(field.description, 400)}</span>
            )}
            {field.choices.length > 0 && (
              <span className="w-full text-sm text-muted">
                {t('One of: {choices}', { choices: oneLine(field.choices.join(', '), 400) })}
              </span>
            )}
            {field.initial !== '' && !field.secret && (
              <span className="w-full text-sm text-muted">
                {t('Default:')} <code className="id">{oneLine(field.initial, 120)}</code>
              </span>
            )}
            {field.suggestion !== '' && (
              <span className="w-full text-sm text-muted">
                {t('Suggested path:')} <code className="id">{oneLine(field.suggestion, 120)}</code>
              </span>
            )}
          </li>
        ))}
      </ul>
    </>
  )
}

/** More servers than this are in the list of servers alone. */
const MOST_DEPLOYED = 20

function Deployed({ entry }: { entry: Entry }) {
  const session = useSession()
  const query = useInfiniteQuery({
    ...qPages(listServers, { query: { search: entry.name, limit: 500, brief: true } }),
    enabled: may(session, 'server:read'),
  })
  // What needs a look may be on any page.
  const unread = useWholeList(query)
  if (!may(session, 'server:read')) return null
  const found = (data: NonNullable<typeof query.data>) =>
    deployedOf(
      data.pages.flatMap((page) => page.items),
      entry.name,
    )
  return (
    <Panel
      title={t('Servers from this entry')}
      query={query}
      flush
      isEmpty={(data) => found(data).length === 0}
      empty={<p className="p-pad text-muted">{t('None yet.')}</p>}
    >
      {(data) => {
        const all = found(data)
        return (
          <>
            {unread}
            <ul>
              {all.slice(0, MOST_DEPLOYED).map((server) => (
                <li
                  key={server.name}
                  className="flex min-h-row items-center justify-between gap-3 border-b px-pad last:border-b-0"
                >
                  <Link to="/servers" search={{ search: server.name }} className="id min-w-0 truncate">
                    {server.name}
                  </Link>
                  <ServerStatus server={server} />
                </li>
              ))}
            </ul>
            {all.length > MOST_DEPLOYED && (
              <p className="border-t px-pad py-2.5">
                <Link to="/servers" search={{ search: entry.name }}>
                  {t('See all {count} in the list of servers', { count: formatNumber(all.length) })}
                </Link>
              </p>
            )}
          </>
        )
      }}
    </Panel>
  )
}
