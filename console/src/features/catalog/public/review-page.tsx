import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { Check, ClipboardCheck, X } from 'lucide-react'
import { useState } from 'react'
import { call } from '@/api/client'
import { getEntry, listEntries, reviewEntry } from '@/api/generated/catalog'
import type { EntrySummary } from '@/api/generated/types'
import { invalidate } from '@/api/queries'
import { useDenied } from '@/api/session'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ConfirmDialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { Textarea } from '@/ui/inputs'
import { LetterTile } from '@/ui/letter-tile'
import { Link } from '@/ui/link'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { toast } from '@/ui/toast'
import { entryParams, entryTitle, KindBadges } from './entry-parts'
import { submittedQuery } from './queries'

/** The entries that wait for a review: approve them, or reject them and say why. */
export function ReviewPage() {
  const { data } = useSuspenseQuery(submittedQuery)
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/marketplace">{t('Marketplace')}</Link>
          </Breadcrumbs>
        }
        title={t('Review')}
      >
        {data.items.length === 0
          ? null
          : plural(
              data.items.length,
              '{count} entry waits for a review.',
              '{count} entries wait for a review.',
            )}
      </PageHeader>
      <Card flush>
        {data.items.length === 0 ? (
          <EmptyState icon={ClipboardCheck} title={t('Nothing waits for a review')}>
            {t('Entries that members submit appear here.')}
          </EmptyState>
        ) : (
          <ul>
            {data.items.map((entry) => (
              <Submitted key={entry.name} entry={entry} />
            ))}
          </ul>
        )}
      </Card>
    </>
  )
}

function Submitted({ entry }: { entry: EntrySummary }) {
  const queryClient = useQueryClient()
  const denied = useDenied('catalog:review')
  const [asked, setAsked] = useState<'approve' | 'reject'>()
  const [why, setWhy] = useState('')
  const [missing, setMissing] = useState(false)
  const name = entryTitle(entry)
  const decide = async (approve: boolean) => {
    await call(reviewEntry, {
      path: { name: entry.name },
      body: approve ? { approve } : { approve, reason: why.trim() },
    })
    toast.done({ title: approve ? t('{name} is approved', { name }) : t('{name} is rejected', { name }) })
    await Promise.all([invalidate(queryClient, listEntries), invalidate(queryClient, getEntry)])
  }
  return (
    <li className="flex flex-wrap items-start gap-x-4 gap-y-3 border-b p-pad last:border-b-0">
      <LetterTile name={name} />
      <div className="min-w-0 flex-1 basis-72">
        <p className="flex flex-wrap items-center gap-2">
          <Link to="/marketplace/$namespace/$name" params={entryParams(entry.name)} className="font-semibold">
            {name}
          </Link>
          <KindBadges kinds={entry.kinds} />
        </p>
        <p className="id wrap-anywhere text-muted">
          {entry.name}@{oneLine(entry.version, 60)}
        </p>
        <p className="mt-1 text-muted">{oneLine(entry.description, 300)}</p>
        <p className="mt-1 text-sm text-faint">
          <RelativeTime at={entry.updated_at} />
        </p>
      </div>
      <div className="flex gap-2">
        <Button icon={X} disabledReason={denied} onClick={() => setAsked('reject')}>
          {t('Reject')}
        </Button>
        <Button variant="primary" icon={Check} disabledReason={denied} onClick={() => setAsked('approve')}>
          {t('Approve')}
        </Button>
      </div>
      <ConfirmDialog
        open={asked === 'approve'}
        onOpenChange={() => setAsked(undefined)}
        title={t('Approve {name}?', { name })}
        confirm={t('Approve')}
        onConfirm={() => decide(true)}
      >
        {t('It appears in the marketplace of this organization, and its version cannot be changed any more.')}
      </ConfirmDialog>
      <ConfirmDialog
        open={asked === 'reject'}
        onOpenChange={() => {
          setAsked(undefined)
          setMissing(false)
        }}
        title={t('Reject {name}?', { name })}
        confirm={t('Reject')}
        danger
        onConfirm={async () => {
          setMissing(why.trim() === '')
          if (why.trim() === '') throw new Error(t('Say why, so that it can be corrected'))
          await decide(false)
        }}
      >
        <Textarea
          id={`reason-${entry.name}`}
          label={t('Reason')}
          hint={t('Whoever submitted it reads this.')}
          required
          maxLength={500}
          value={why}
          onValueChange={setWhy}
          error={missing && why.trim() === '' ? t('Say why') : undefined}
        />
      </ConfirmDialog>
    </li>
  )
}
