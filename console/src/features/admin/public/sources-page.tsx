import { useQueryClient, useSuspenseQuery } from '@tanstack/react-query'
import { Library, Plus, RefreshCw, Trash2 } from 'lucide-react'
import { useState } from 'react'
import * as v from 'valibot'
import { callToChange } from '@/api/answer-lost'
import { call } from '@/api/client'
import { createSource, deleteSource, listSources, syncSource } from '@/api/generated/catalog'
import type { Source } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate, q } from '@/api/queries'
import { useForm } from '@/lib/form'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button, IconButton } from '@/ui/button'
import { Card } from '@/ui/card'
import { CancelButton, ConfirmDialog, Dialog } from '@/ui/dialog'
import { EmptyState } from '@/ui/empty-state'
import { ErrorNote } from '@/ui/error-state'
import { TextInput } from '@/ui/inputs'
import { RelativeTime } from '@/ui/relative-time'
import { Status, type StatusKind } from '@/ui/status'
import { toast } from '@/ui/toast'
import { RadioGroup } from '@/ui/toggles'

/** Asked again while a sync runs: its end has no event of its own. */
const WHILE_RUNNING_MS = 2_000

const sourcesQuery = {
  ...q(listSources, {}),
  refetchInterval: (query: { state: { data: { items: Source[] } | undefined } }) =>
    query.state.data?.items.some((source) => source.sync_state === 'running') === true
      ? WHILE_RUNNING_MS
      : (false as const),
}

/** Where catalog entries come from. */
export function SourcesPage() {
  const { data } = useSuspenseQuery(sourcesQuery)
  const [adding, setAdding] = useState(false)
  const add = (
    <Button variant="primary" icon={Plus} onClick={() => setAdding(true)}>
      {t('Add a source')}
    </Button>
  )
  return (
    <>
      <div className="mb-3 flex flex-wrap items-center justify-between gap-2">
        <p className="text-muted">{t('The marketplace shows the entries of all of these.')}</p>
        {add}
      </div>
      {data.items.length === 0 ? (
        <EmptyState icon={Library} title={t('No source')} action={add}>
          {t('Add the official registry, another Toolyard, or a file.')}
        </EmptyState>
      ) : (
        <ul className="flex flex-col gap-3">
          {data.items.map((source) => (
            <li key={source.id}>
              <SourceCard source={source} />
            </li>
          ))}
        </ul>
      )}
      {adding && <AddSource onOpenChange={setAdding} />}
    </>
  )
}

function SourceCard({ source }: { source: Source }) {
  const client = useQueryClient()
  const [deleting, setDeleting] = useState(false)
  const [busy, setBusy] = useState(false)
  const outside = source.kind === 'registry' || source.kind === 'file'
  const sync = async () => {
    setBusy(true)
    try {
      await callToChange(
        syncSource,
        { path: { name: source.name } },
        t('It is not known whether {name} is being synced', { name: source.name }),
      )
      await invalidate(client, listSources)
    } catch (error) {
      toast.problem(t('{name} is not synced', { name: source.name }), error)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Card>
      <div className="flex flex-wrap items-start justify-between gap-3">
        <div className="min-w-0 flex-1 basis-64">
          <h2 className="flex flex-wrap items-center gap-2 text-base font-semibold">
            <span className="id">{source.name}</span>
            <Badge>{kindText(source.kind)}</Badge>
          </h2>
          {source.url != null && <p className="id mt-0.5 wrap-anywhere text-muted">{oneLine(source.url)}</p>}
          <p className="mt-1.5 flex flex-wrap items-center gap-x-3 gap-y-1 text-sm text-muted">
            <span>{plural(source.entries, '{count} entry', '{count} entries')}</span>
            {outside && <SyncState source={source} />}
          </p>
          {outside && source.sync_message !== undefined && source.sync_message !== '' && (
            <p className="mt-1 text-sm wrap-anywhere text-muted">{oneLine(source.sync_message, 500)}</p>
          )}
        </div>
        {outside && (
          <div className="flex items-center gap-1.5">
            <Button
              size="small"
              icon={RefreshCw}
              busy={busy || source.sync_state === 'running'}
              disabledReason={
                source.enabled
                  ? undefined
                  : t('It is switched off by the setting registry_sync, where Toolyard runs')
              }
              onClick={() => void sync()}
            >
              {t('Sync now')}
            </Button>
            <IconButton
              icon={Trash2}
              label={t('Delete {name}', { name: source.name })}
              onClick={() => setDeleting(true)}
            />
          </div>
        )}
      </div>
      <ConfirmDialog
        open={deleting}
        onOpenChange={setDeleting}
        title={t('Delete source {name}?', { name: source.name })}
        confirm={t('Delete')}
        danger
        onConfirm={async () => {
          await callToChange(
            deleteSource,
            { path: { name: source.name } },
            t('It is not known whether {name} is deleted', { name: source.name }),
          )
          await invalidate(client, listSources)
          toast.done({ title: t('{name} is deleted', { name: source.name }) })
        }}
      >
        {plural(
          source.entries,
          'Its {count} entry leaves the marketplace. Servers that were deployed from it go on.',
          'Its {count} entries leave the marketplace. Servers that were deployed from them go on.',
        )}
      </ConfirmDialog>
    </Card>
  )
}

const KINDS: Record<string, StatusKind> = { done: 'good', failed: 'bad', running: 'working' }

function SyncState({ source }: { source: Source }) {
  if (!source.enabled)
    return (
      <Status kind="off" wraps>
        {t('Switched off in the settings (registry_sync)')}
      </Status>
    )
  return (
    <>
      <Status kind={KINDS[source.sync_state] ?? 'waiting'}>{syncText(source.sync_state)}</Status>
      {source.synced_at != null && (
        <span>
          {t('last')} <RelativeTime at={source.synced_at} />
        </span>
      )}
      {source.next_sync_at != null && (
        <span>
          {t('next')} <RelativeTime at={source.next_sync_at} />
        </span>
      )}
    </>
  )
}

function syncText(state: string): string {
  switch (state) {
    case 'done':
      return t('Synced')
    case 'failed':
      return t('Sync failed')
    case 'running':
      return t('Syncing')
    default:
      return t('Not synced yet')
  }
}

function kindText(kind: string): string {
  switch (kind) {
    case 'built_in':
      return t('built in')
    case 'own':
      return t('published here')
    case 'registry':
      return t('registry')
    case 'file':
      return t('file')
    default:
      return kind
  }
}

function AddSource({ onOpenChange }: { onOpenChange: (open: boolean) => void }) {
  const client = useQueryClient()
  const once = useOnce()
  const form = useForm({
    initial: { kind: 'registry' as 'registry' | 'file', name: '', url: '' }, // as: one of its values, not only this one
    schema: v.object({
      kind: v.picklist(['registry', 'file']),
      name: v.pipe(
        v.string(),
        v.trim(),
        v.regex(/^[a-z0-9]+(-[a-z0-9]+)*$/, t('Letters a to z, digits and single dashes')),
        v.maxLength(40, t('At most 40 characters')),
      ),
      url: v.pipe(v.string(), v.trim(), v.url(t('An address such as https://registry.example.org'))),
    }),
    submit: async (body) => {
      await once(body, (idempotencyKey) => call(createSource, { body }, { idempotencyKey }))
      await invalidate(client, listSources)
      toast.done({ title: t('{name} is added, its first sync has begun', { name: body.name }) })
      onOpenChange(false)
    },
  })
  return (
    <Dialog open onOpenChange={onOpenChange} title={t('Add a source')}>
      <form noValidate onSubmit={form.onSubmit} className="flex flex-col gap-4">
        <RadioGroup
          label={t('Kind')}
          {...form.field('kind')}
          options={[
            {
              value: 'registry',
              label: t('Registry'),
              hint: t('The official registry, or anything that serves its API, such as another Toolyard.'),
            },
            { value: 'file', label: t('File'), hint: t('One JSON file with entries, by its address.') },
          ]}
        />
        <TextInput
          {...form.field('name')}
          label={t('Name')}
          required
          mono
          autoComplete="off"
          placeholder={form.values.kind === 'registry' ? 'official' : 'team-list'}
        />
        <TextInput
          {...form.field('url')}
          label={t('Address')}
          hint={
            form.values.kind === 'registry'
              ? t('The base, without /v0.1: the rest is added.')
              : t('A file in the form of the registry’s server.json, one entry or a list.')
          }
          type="url"
          required
          mono
          autoComplete="off"
        />
        <ErrorNote error={form.submitError} />
        <div className="flex flex-wrap justify-end gap-2">
          <CancelButton />
          <Button type="submit" variant="primary" busy={form.submitting}>
            {t('Add the source')}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
