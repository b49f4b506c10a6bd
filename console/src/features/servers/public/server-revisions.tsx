import { useQuery, useQueryClient, useSuspenseInfiniteQuery, useSuspenseQuery } from '@tanstack/react-query'
import { Undo2 } from 'lucide-react'
import { useState } from 'react'
import { callToChange } from '@/api/answer-lost'
import { listCredentials } from '@/api/generated/credentials'
import { rollbackServer } from '@/api/generated/servers'
import type { Revision } from '@/api/generated/types'
import { q } from '@/api/queries'
import { may, useDenied, useSession } from '@/api/session'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ConfirmDialog } from '@/ui/dialog'
import { DiffView } from '@/ui/diff-view'
import { LoadMore } from '@/ui/load-more'
import { Notice } from '@/ui/notice'
import { RelativeTime } from '@/ui/relative-time'
import { Select } from '@/ui/select'
import { toast } from '@/ui/toast'
import { revisionTrouble } from '../revision-state'
import { specText } from '../spec-text'
import { revisionsQuery, serverQuery } from './queries'
import { useSpecDenied } from './spec-denied'

/** Which two revisions are compared: their numbers. */
export interface ComparedRevisions {
  from?: number | undefined
  to?: number | undefined
}

/** What was ever meant to run, what differs between any two, and the way back. */
export function ServerRevisions({
  name,
  compared,
  onComparedChange,
}: {
  name: string
  compared: ComparedRevisions
  onComparedChange: (compared: ComparedRevisions) => void
}) {
  const { data: server } = useSuspenseQuery(serverQuery(name))
  const query = useSuspenseInfiniteQuery(revisionsQuery(name))
  const revisions = query.data.pages.flatMap((page) => page.items)
  const client = useQueryClient()
  const [asked, setAsked] = useState<Revision>()
  const askedTrouble = asked === undefined ? undefined : revisionTrouble(asked, server)
  const denied = useDenied('server:deploy')
  const specDenied = useSpecDenied()
  const current = revisions.find((one) => one.number === server.revision)
  const to = revisions.find((one) => one.number === compared.to) ?? revisions[0]
  const from =
    revisions.find((one) => one.number === compared.from) ??
    revisions.find((one) => one.number < (to?.number ?? 0)) ??
    to
  return (
    <div className="grid items-start gap-4 xl:grid-cols-[minmax(0,1fr)_minmax(0,1fr)]">
      <Card title={t('Revisions')} flush>
        <ol reversed aria-label={t('Revisions, newest first')}>
          {revisions.map((revision, at) => {
            const trouble = revisionTrouble(revision, server)
            // The oldest that is kept need not be the first one, and those between two may be gone.
            const before = revisions[at + 1]?.number ?? (query.hasNextPage ? revision.number - 1 : undefined)
            return (
              <li
                key={revision.id}
                className="flex min-h-row flex-wrap items-center gap-x-4 gap-y-1 border-b px-pad py-2 last:border-b-0"
              >
                <span className="tabular w-8 font-medium">{revision.number}</span>
                <div className="min-w-0 flex-1 basis-48">
                  <p className="flex flex-wrap items-center gap-x-2">
                    {changeText(revision.change)}
                    {revision.number === server.revision && <Badge tone="good">{t('current')}</Badge>}
                    {trouble !== undefined && <Badge tone="warn">{trouble}</Badge>}
                  </p>
                  <p className="text-sm text-muted">
                    <RelativeTime at={revision.created_at} /> · {oneLine(revision.created_by, 80)}
                    {revision.spec.entry != null && (
                      <>
                        {' · '}
                        <span className="id">{oneLine(revision.spec.entry.version, 60)}</span>
                      </>
                    )}
                  </p>
                </div>
                <div className="flex gap-2">
                  <Button
                    size="small"
                    variant="ghost"
                    disabledReason={before === undefined ? t('It is the first one') : undefined}
                    onClick={() => onComparedChange({ from: before, to: revision.number })}
                  >
                    {t('What changed')}
                  </Button>
                  <Button
                    size="small"
                    icon={Undo2}
                    aria-label={t('Roll back to revision {number}', { number: revision.number })}
                    disabledReason={
                      denied ??
                      (revision.number === server.revision
                        ? t('It is the current one')
                        : specDenied(revision.spec, current?.spec))
                    }
                    onClick={() => setAsked(revision)}
                  >
                    {t('Roll back')}
                  </Button>
                </div>
              </li>
            )
          })}
        </ol>
        <LoadMore query={query} />
      </Card>
      {from !== undefined && to !== undefined && (
        <Card title={t('What differs')}>
          <div className="mb-3 grid grid-cols-2 gap-3">
            <RevisionSelect
              id="from"
              label={t('From')}
              value={from}
              revisions={revisions}
              onChange={(number) => onComparedChange({ from: number, to: to.number })}
            />
            <RevisionSelect
              id="to"
              label={t('To')}
              value={to}
              revisions={revisions}
              onChange={(number) => onComparedChange({ from: from.number, to: number })}
            />
          </div>
          <Difference from={from} to={to} />
        </Card>
      )}
      {asked !== undefined && (
        <ConfirmDialog
          open
          onOpenChange={(open) => !open && setAsked(undefined)}
          title={t('Roll {name} back to revision {number}?', { name, number: asked.number })}
          confirm={t('Roll back')}
          onConfirm={async () => {
            const answer = await callToChange(
              rollbackServer,
              { path: { name }, body: { revision: asked.number } },
              t('It is not known whether {name} goes back to revision {number}', {
                name,
                number: asked.number,
              }),
            )
            client.setQueryData(serverQuery(name).queryKey, answer)
            toast.done({
              title: t('{name} goes back to revision {number}', { name, number: asked.number }),
            })
          }}
        >
          {askedTrouble !== undefined && (
            <div className="mb-3">
              <Notice
                tone="warn"
                title={t('Revision {number}: {what}', { number: asked.number, what: askedTrouble })}
              >
                {t('It may fail.')}
              </Notice>
            </div>
          )}
          <p className="mb-3">{t('That revision is rolled out again.')}</p>
          <Difference from={current ?? asked} to={asked} />
        </ConfirmDialog>
      )}
    </div>
  )
}

function Difference({ from, to }: { from: Revision; to: Revision }) {
  const session = useSession()
  const { data } = useQuery({
    ...q(listCredentials, { query: { limit: 500 } }),
    enabled: may(session, 'credential:read'),
  })
  const nameOf = (id: string) => data?.items.find((one) => one.id === id)?.name
  return (
    <DiffView
      key={`${from.id} ${to.id}`}
      label={t('Revision {from} compared to {to}', { from: from.number, to: to.number })}
      before={specText(from.spec, nameOf)}
      after={specText(to.spec, nameOf)}
    />
  )
}

function RevisionSelect({
  id,
  label,
  value,
  revisions,
  onChange,
}: {
  id: string
  label: string
  value: Revision
  revisions: readonly Revision[]
  onChange: (number: number) => void
}) {
  return (
    <Select
      id={`revision-${id}`}
      label={label}
      value={String(value.number)}
      options={revisions.map((one) => ({
        value: String(one.number),
        label: `${one.number} · ${changeText(one.change)}`,
      }))}
      onValueChange={(number) => onChange(Number(number))}
    />
  )
}

function changeText(change: string): string {
  const text = oneLine(change, 120)
  return text.charAt(0).toUpperCase() + text.slice(1)
}
