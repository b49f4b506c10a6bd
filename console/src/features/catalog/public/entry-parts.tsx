import { BadgeCheck, Star } from 'lucide-react'
import type { ReactNode } from 'react'
import type { Entry } from '@/api/generated/types'
import { offers } from '@/features/servers/public/inputs'
import { cx } from '@/lib/cx'
import { formatCompact } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Tooltip } from '@/ui/tooltip'

/** A kind of package in words. */
export function kindText(kind: string): string {
  const texts: Record<string, string> = {
    npm: 'npm',
    pypi: 'PyPI',
    oci: t('Container'),
    remote: t('Remote'),
    nuget: 'NuGet',
    mcpb: 'MCPB',
    cargo: 'Cargo',
  }
  return texts[kind] ?? oneLine(kind, 20)
}

/** The name of an entry as people read it: its title, else what follows the slash. */
export function entryTitle(entry: { name: string; title?: string | null }): string {
  return oneLine(entry.title, 100) || (entry.name.split('/')[1] ?? entry.name)
}

/** The two parts of an entry's name, as the parameters of its page. */
export function entryParams(name: string): { namespace: string; name: string } {
  const slash = name.indexOf('/')
  return { namespace: name.slice(0, slash), name: name.slice(slash + 1) }
}

/** The kinds in which an entry can run. */
export function KindBadges({ kinds }: { kinds: readonly string[] }) {
  return kinds.map((kind) => <Badge key={kind}>{kindText(kind)}</Badge>)
}

/** Who verified an entry. Nothing when nobody did. */
export function VerifiedMark({ by }: { by: string | null | undefined }) {
  if (by === null || by === undefined || by === '') return null
  const text = t('Verified by {who}', { who: oneLine(by, 80) })
  return (
    <Tooltip text={text}>
      <span className="inline-flex shrink-0 text-good">
        <BadgeCheck aria-hidden="true" className="size-4" />
        <span className="sr-only">{text}</span>
      </span>
    </Tooltip>
  )
}

/** Who verified an entry, in words, as a fact about it. */
export function verification(by: string | null | undefined): readonly [string, ReactNode] {
  if (by === null || by === undefined || by === '') {
    return [
      t('Verified by'),
      <span key="nobody" className="text-muted">
        {t('nobody here')}
      </span>,
    ]
  }
  return [
    t('Verified by'),
    <span key="by" className="flex min-w-0 items-center gap-1.5">
      <BadgeCheck aria-hidden="true" className="size-4 shrink-0 text-good" />
      <span className="min-w-0 wrap-anywhere">{oneLine(by, 80)}</span>
    </span>,
  ]
}

/** The mean rating with how many rated. */
export function Rating({ rating, ratings }: { rating: number | null | undefined; ratings: number }) {
  if (rating === null || rating === undefined || ratings === 0) return null
  const value = rating.toLocaleString(undefined, { maximumFractionDigits: 1 })
  return (
    <span className="tabular inline-flex items-center gap-1">
      <Star aria-hidden="true" className="size-3.5 fill-current text-warn" />
      <span aria-hidden="true">
        {value} <span className="text-faint">({formatCompact(ratings)})</span>
      </span>
      <span className="sr-only">
        {plural(ratings, 'rated {value} of 5 by {count} person', 'rated {value} of 5 by {count} people', {
          value,
        })}
      </span>
    </span>
  )
}

/** What the publisher says of an entry that is no longer active. */
export function StatusBadge({ status, className }: { status: string; className?: string }) {
  if (status === 'active') return null
  return (
    <span className={cx('inline-flex', className)}>
      <Badge tone={status === 'deleted' ? 'bad' : 'warn'}>
        {status === 'deprecated'
          ? t('Deprecated')
          : status === 'deleted'
            ? t('Deleted')
            : oneLine(status, 20)}
      </Badge>
    </span>
  )
}

/** Why an entry cannot be deployed; `undefined` when it can. */
export function undeployable(entry: Entry): string | undefined {
  if (entry.review !== 'approved') return t('It is not approved')
  if (entry.status === 'deleted') return t('Its publisher deleted it')
  return offers(entry.server).some((offer) => offer.runs)
    ? undefined
    : t('It offers nothing that Toolyard can run: npm, PyPI or a container over stdio, or an address')
}

/** The README that an entry carries in its `_meta`, under any publisher's key. */
export function readmeOf(entry: Entry): string | undefined {
  for (const value of Object.values(entry.server._meta ?? {})) {
    if (typeof value !== 'object' || value === null || !('readme' in value)) continue
    if (typeof value.readme === 'string' && value.readme.trim() !== '') return value.readme
  }
  return undefined
}
