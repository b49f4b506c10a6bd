import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query'
import { CircleCheck, Upload } from 'lucide-react'
import { useEffect, useState } from 'react'
import { flushSync } from 'react-dom'
import { call } from '@/api/client'
import { listCategories, listEntries, publishEntry } from '@/api/generated/catalog'
import type { Entry, FieldError, Validation } from '@/api/generated/types'
import { useOnce } from '@/api/once'
import { invalidate, q } from '@/api/queries'
import { may, useDenied, useForbidden, useSession } from '@/api/session'
import { formatBytes } from '@/lib/format'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { ErrorNote } from '@/ui/error-state'
import { FilterChips } from '@/ui/filter-chips'
import { Textarea } from '@/ui/inputs'
import { Link } from '@/ui/link'
import { Markdown } from '@/ui/markdown'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { Spinner } from '@/ui/spinner'
import { Status } from '@/ui/status'
import { toast } from '@/ui/toast'
import { Checkbox } from '@/ui/toggles'
import { UnsavedChangesGuard } from '@/ui/unsaved-changes-bar'
import { entryTitle, readmeOf } from './entry-parts'

/** So long after the last key the document is checked. */
const PAUSE_MS = 350
const LARGEST = 256 * 1024
const LARGEST_README = 64 * 1024

/** Where a new document starts: the form of the registry's schema with nothing filled in. */
const START = `{
  "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
  "name": "",
  "title": "",
  "description": "",
  "version": "1.0.0",
  "packages": [
    {
      "registryType": "npm",
      "identifier": "",
      "version": "",
      "transport": { "type": "stdio" },
      "environmentVariables": []
    }
  ]
}
`

type Checked =
  | { kind: 'empty' }
  | { kind: 'no-json'; message: string }
  | { kind: 'document'; server: unknown }

/** What a text is, as far as can be said here. */
function read(text: string): Checked {
  if (text.trim() === '') return { kind: 'empty' }
  if (text.length > LARGEST) return { kind: 'no-json', message: t('It has more than 256 KiB') }
  try {
    return { kind: 'document', server: JSON.parse(text) }
  } catch (error) {
    return { kind: 'no-json', message: error instanceof Error ? error.message : t('It is no JSON') }
  }
}

/** Publishes an entry of one's own, or submits it for review; it is checked while it is typed. */
export function PublishPage({
  from,
  onPublished,
}: {
  /** The entry whose document it begins with. */
  from: Entry | undefined
  onPublished: (name: string) => void
}) {
  const session = useSession()
  const queryClient = useQueryClient()
  const forbidden = useForbidden('catalog:submit')
  const denied = useDenied('catalog:submit')
  const reviews = may(session, 'catalog:review')
  const [start] = useState(() => (from === undefined ? START : `${JSON.stringify(from.server, null, 2)}\n`))
  const [text, setText] = useState(start)
  const [settled, setSettled] = useState(start)
  const [categories, setCategories] = useState<string[]>(from?.categories ?? [])
  const [readme, setReadme] = useState(() => (from === undefined ? '' : (readmeOf(from) ?? '')))
  const [startReadme] = useState(readme)
  const [isPublic, setPublic] = useState(from?.public ?? false)
  const [done, setDone] = useState(false)
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), PAUSE_MS)
    return () => clearTimeout(timer)
  }, [text])
  const document = read(settled)
  const checking = useQuery({
    queryKey: ['publish_entry', 'dry_run', settled],
    queryFn: ({ signal }) =>
      call(
        publishEntry,
        { body: { server: document.kind === 'document' ? document.server : undefined, dry_run: true } },
        { signal },
      ),
    enabled: document.kind === 'document' && denied === undefined,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
    placeholderData: (before) => before,
  })
  const known = useQuery(q(listCategories, {}))
  const once = useOnce()
  const publish = useMutation({
    mutationFn: (server: unknown) => {
      const body = { server, categories, readme, public: isPublic }
      return once(body, (idempotencyKey) => call(publishEntry, { body }, { idempotencyKey }))
    },
    onSuccess: async ({ entry }) => {
      // At once: the page is left right after, and would ask first.
      flushSync(() => setDone(true))
      await invalidate(queryClient, listEntries)
      if (!entry) return
      toast.done({
        title: reviews
          ? t('{name} is in the marketplace', { name: entryTitle(entry) })
          : t('{name} waits for a review', { name: entryTitle(entry) }),
      })
      onPublished(entry.name)
    },
  })
  const validation = document.kind === 'document' ? checking.data?.validation : undefined
  const untouched = settled === START
  const fresh = text === settled && !checking.isPlaceholderData
  const readmeBytes = new TextEncoder().encode(readme).length
  const reason =
    denied ??
    (readmeBytes > LARGEST_README ? t('Shorten the README first') : undefined) ??
    (document.kind !== 'document'
      ? t('The document is not JSON yet')
      : !fresh || validation === undefined
        ? t('The document is being checked')
        : validation.errors.length > 0
          ? plural(validation.errors.length, 'Correct {count} error first', 'Correct {count} errors first')
          : undefined)
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/marketplace">{t('Marketplace')}</Link>
          </Breadcrumbs>
        }
        title={t('Publish an entry')}
      >
        {reviews
          ? t('A server.json document in the form of the MCP registry. It is in the marketplace at once.')
          : t('A server.json document in the form of the MCP registry. A reviewer looks at it first.')}
      </PageHeader>
      <UnsavedChangesGuard dirty={(text !== start || readme !== startReadme) && !done} />
      <form
        noValidate
        onSubmit={(event) => {
          event.preventDefault()
          if (reason === undefined && document.kind === 'document' && !publish.isPending)
            publish.mutate(document.server)
        }}
        className="grid items-start gap-4 lg:grid-cols-[minmax(0,3fr)_minmax(18rem,2fr)]"
      >
        <fieldset disabled={forbidden !== undefined} className="flex min-w-0 flex-col gap-4">
          {forbidden !== undefined && <Notice>{forbidden}</Notice>}
          <Card title={t('Document')}>
            <Textarea
              id="publish-document"
              label={t('server.json')}
              rows={24}
              value={text}
              onValueChange={setText}
              className="[&_textarea]:max-h-[70vh] [&_textarea]:min-h-80"
              mono
            />
          </Card>
          <Card title={t('In the marketplace')}>
            <div className="flex flex-col gap-4">
              <Textarea
                id="publish-readme"
                label={t('README')}
                hint={t('What people read about it, in Markdown. It belongs to this version.')}
                rows={8}
                value={readme}
                onValueChange={setReadme}
                error={
                  readmeBytes > LARGEST_README
                    ? t('It has {size}, and may have 64 KiB', { size: formatBytes(readmeBytes) })
                    : undefined
                }
                required={false}
                mono
              />
              {readme.trim() !== '' && (
                <details>
                  <summary className="min-h-6 font-medium">{t('As it will look')}</summary>
                  <div className="mt-2 rounded-md border p-3">
                    <Markdown text={readme} />
                  </div>
                </details>
              )}
              {(known.data?.items.length ?? 0) > 0 && (
                <div>
                  <p className="mb-1.5 text-sm font-medium">{t('Categories')}</p>
                  <FilterChips
                    label={t('Categories')}
                    multiple
                    chosen={categories}
                    onChange={(next) => setCategories(next.slice(0, 10))}
                    options={(known.data?.items ?? []).map((one) => ({
                      value: one.name,
                      label: oneLine(one.name, 40),
                    }))}
                  />
                  <p className="mt-1.5 text-sm text-muted">
                    {t('At most ten. With none chosen, those of the document are taken.')}
                  </p>
                </div>
              )}
              <Checkbox
                label={t('Show it on /v0.1/servers, without a key')}
                hint={t('For registries and clients outside of this organization.')}
                value={isPublic}
                onValueChange={setPublic}
                disabledReason={reviews ? undefined : t('Only a reviewer may make an entry public')}
              />
            </div>
          </Card>
        </fieldset>
        <div className="flex min-w-0 flex-col gap-4 lg:sticky lg:top-4">
          <Card title={t('Check')} actions={!fresh || checking.isFetching ? <Spinner /> : undefined}>
            <div aria-live="polite">
              {(document.kind === 'empty' || untouched) && (
                <p className="text-muted">{t('Paste or write a document. It is checked while you type.')}</p>
              )}
              {document.kind === 'no-json' && (
                <Findings
                  tone="bad"
                  title={t('Not JSON')}
                  items={[{ field: '', message: document.message }]}
                />
              )}
              {document.kind === 'document' && checking.error !== null && (
                <ErrorNote error={checking.error} />
              )}
              {validation !== undefined && checking.error === null && !untouched && (
                <Found validation={validation} />
              )}
            </div>
          </Card>
          <ErrorNote error={publish.error} />
          <div className="flex justify-end">
            <Button
              type="submit"
              variant="primary"
              icon={Upload}
              busy={publish.isPending}
              disabledReason={reason}
            >
              {reviews ? t('Publish') : t('Submit for review')}
            </Button>
          </div>
        </div>
      </form>
    </>
  )
}

function Found({ validation }: { validation: Validation }) {
  const { errors, warnings, advice } = validation
  return (
    <div className="flex flex-col gap-4">
      {errors.length === 0 && (
        <p className="flex items-center gap-2">
          <CircleCheck aria-hidden="true" className="size-4 text-good" />
          {t('It can be published.')}
        </p>
      )}
      <Findings tone="bad" title={t('Errors')} items={errors} />
      <Findings tone="warn" title={t('Likely mistakes')} items={warnings} />
      <Findings tone="unknown" title={t('What would make it better')} items={advice} />
    </div>
  )
}

function Findings({
  tone,
  title,
  items,
}: {
  tone: 'bad' | 'warn' | 'unknown'
  title: string
  items: readonly FieldError[]
}) {
  if (items.length === 0) return null
  return (
    <section>
      <h3 className="mb-1 font-medium">
        <Status kind={tone} wraps>
          {title}
        </Status>
      </h3>
      <ul className="flex flex-col gap-1.5">
        {items.map((item, place) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the list is replaced as a whole.
          <li key={place} className="wrap-anywhere">
            {item.field !== '' && <code className="id mr-2 text-muted">{oneLine(item.field, 200)}</code>}
            {plainText(item.message, 1000)}
          </li>
        ))}
      </ul>
    </section>
  )
}
