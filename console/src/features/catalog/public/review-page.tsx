import { type QueryClient, useQuery, useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { Check, ClipboardCheck, X } from 'lucide-react'
import { useState } from 'react'
import * as v from 'valibot'
import { callToChange } from '@/api/answer-lost'
import { getEntry, listEntries, reviewEntry } from '@/api/generated/catalog'
import type { Entry, EntrySummary } from '@/api/generated/types'
import { isGone } from '@/api/gone'
import { invalidate } from '@/api/queries'
import { useDenied } from '@/api/session'
import { focusInstead } from '@/lib/focus-after'
import { useForm, useUnsaved } from '@/lib/form'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CancelButton, Dialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { ErrorNote } from '@/ui/error-state'
import { Textarea } from '@/ui/inputs'
import { JsonView } from '@/ui/json-view'
import { LetterTile } from '@/ui/letter-tile'
import { Link } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { RelativeTime } from '@/ui/relative-time'
import { toast } from '@/ui/toast'
import { decisionMeanwhile } from '../decision'
import { entryParams, entryTitle, KindBadges } from './entry-parts'
import { entryQuery, submittedQuery } from './queries'

/** The entries that wait for a review: approve them, or reject them and say why. */
export function ReviewPage() {
  const { data } = useSuspenseQuery(submittedQuery)
  // Here, and not beside its entry: an entry that somebody else decides about leaves the list, and the question stays.
  const [asked, setAsked] = useState<{ entry: EntrySummary; decision: 'approve' | 'reject' }>()
  const close = () => focusInstead(() => setAsked(undefined))
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
              <Submitted
                key={entry.name}
                entry={entry}
                onDecide={(decision) => setAsked({ entry, decision })}
              />
            ))}
          </ul>
        )}
      </Card>
      {asked?.decision === 'approve' && <Approve entry={asked.entry} onClose={close} />}
      {asked?.decision === 'reject' && <Reject entry={asked.entry} onClose={close} />}
    </>
  )
}

function Submitted({
  entry,
  onDecide,
}: {
  entry: EntrySummary
  onDecide: (decision: 'approve' | 'reject') => void
}) {
  const denied = useDenied('catalog:review')
  const name = entryTitle(entry)
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
        <Button icon={X} disabledReason={denied} onClick={() => onDecide('reject')}>
          {t('Reject')}
        </Button>
        <Button variant="primary" icon={Check} disabledReason={denied} onClick={() => onDecide('approve')}>
          {t('Approve')}
        </Button>
      </div>
    </li>
  )
}

function readAgain(queryClient: QueryClient) {
  return Promise.all([invalidate(queryClient, listEntries), invalidate(queryClient, getEntry)])
}

/** Shows the document that is approved: that one and no other, whatever is submitted meanwhile. */
function Approve({ entry, onClose }: { entry: EntrySummary; onClose: () => void }) {
  const { latest, error, meanwhile } = useDecision(entry)
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      size="large"
      title={t('Approve {name}?', { name: entryTitle(entry) })}
      description={t(
        'It appears in the marketplace of this organization, and its version cannot be changed any more.',
      )}
    >
      {error !== null && meanwhile === undefined && <ErrorNote error={error} />}
      {latest === undefined ? (
        <Meanwhile text={meanwhile} />
      ) : (
        <Seen latest={latest} meanwhile={meanwhile} onClose={onClose} />
      )}
    </Dialog>
  )
}

/** An entry as it is now, and what somebody else decided about it since it was opened here. */
function useDecision(entry: EntrySummary) {
  const { data, error, isFetchedAfterMount } = useQuery({ ...entryQuery(entry.name), staleTime: 0 })
  // What was read stays on the screen, also of an entry that is gone.
  const [last, setLast] = useState(data)
  if (data !== undefined && data !== last) setLast(data)
  return {
    latest: last,
    error,
    meanwhile: isFetchedAfterMount ? decisionMeanwhile(data, isGone(error)) : undefined,
  }
}

function Meanwhile({ text }: { text: string | undefined }) {
  return (
    <div role="alert" className="empty:hidden">
      {text !== undefined && <Notice tone="warn">{text}</Notice>}
    </div>
  )
}

function Seen({
  latest,
  meanwhile,
  onClose,
}: {
  latest: Entry
  meanwhile: string | undefined
  onClose: () => void
}) {
  const queryClient = useQueryClient()
  // What is read stays on the screen until the reader asks for the newer one.
  const [seen, setSeen] = useState(latest)
  const [busy, setBusy] = useState(false)
  const [decided, setDecided] = useState(false)
  useUnsaved(busy, { saving: busy })
  const [error, setError] = useState<unknown>()
  // What is heard before one's own answer may be one's own decision.
  const other = decided || busy ? undefined : meanwhile
  const name = entryTitle(seen)
  const approve = async () => {
    setBusy(true)
    setError(undefined)
    try {
      await callToChange(
        reviewEntry,
        { path: { name: seen.name }, body: { approve: true } },
        t('It is not known whether {name} is approved', { name }),
        { ifMatch: `"${seen.digest}"` },
      )
      toast.done({ title: t('{name} is approved', { name }) })
      setDecided(true)
      await readAgain(queryClient)
      onClose()
    } catch (failed) {
      setError(failed)
      await readAgain(queryClient)
    } finally {
      setBusy(false)
    }
  }
  return (
    <div className="flex flex-col gap-4">
      <p className="id wrap-anywhere text-muted">
        {seen.name}@{oneLine(seen.version, 60)} · {oneLine(seen.digest, 80)}
      </p>
      <JsonView key={seen.digest} value={seen.server} label={t('Document')} openDepth={6} />
      {latest.digest !== seen.digest && (
        <Notice
          actions={
            <Button
              onClick={() => {
                setError(undefined)
                setSeen(latest)
              }}
            >
              {t('Show it')}
            </Button>
          }
        >
          {t('Another document was submitted meanwhile.')}
        </Notice>
      )}
      <Meanwhile text={other} />
      {error !== undefined && other === undefined && <ErrorNote error={error} />}
      <div className="flex flex-wrap justify-end gap-2">
        <CancelButton>{other === undefined ? t('Cancel') : t('Close')}</CancelButton>
        <Button
          variant="primary"
          icon={Check}
          busy={busy}
          disabledReason={other === undefined ? undefined : t('It is decided already')}
          onClick={() => void approve()}
        >
          {t('Approve')}
        </Button>
      </div>
    </div>
  )
}

function Reject({ entry, onClose }: { entry: EntrySummary; onClose: () => void }) {
  const queryClient = useQueryClient()
  const { meanwhile } = useDecision(entry)
  const [decided, setDecided] = useState(false)
  const name = entryTitle(entry)
  const form = useForm({
    initial: { reason: '' },
    schema: v.object({
      reason: v.pipe(v.string(), v.trim(), v.minLength(1, t('Say why, so that it can be corrected'))),
    }),
    submit: async ({ reason }) => {
      await callToChange(
        reviewEntry,
        { path: { name: entry.name }, body: { approve: false, reason } },
        t('It is not known whether {name} is rejected', { name }),
      )
      toast.done({ title: t('{name} is rejected', { name }) })
      setDecided(true)
      // Before the dialog goes, so that nobody decides on the same entry again.
      await readAgain(queryClient)
      onClose()
    },
  })
  // What is heard before one's own answer may be one's own decision.
  const other = decided || form.submitting ? undefined : meanwhile
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      size="small"
      title={t('Reject {name}?', { name })}
    >
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <Textarea
          {...form.field('reason')}
          label={t('Reason')}
          hint={t('Whoever submitted it reads this.')}
          required
          maxLength={500}
        />
        <Meanwhile text={other} />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton>{other === undefined ? t('Cancel') : t('Close')}</CancelButton>
          <Button
            type="submit"
            variant="danger"
            busy={form.submitting}
            disabledReason={other === undefined ? undefined : t('It is decided already')}
          >
            {t('Reject')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
