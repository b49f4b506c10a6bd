import { BookOpen, Download } from 'lucide-react'
import { type ReactNode, useState } from 'react'
import { formatBytes } from '@/lib/format'
import { isObject, type JsonObject } from '@/lib/mcp/client'
import { saveFile } from '@/lib/save-file'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button } from '@/ui/button'
import { CopyButton } from '@/ui/copy-button'
import { JsonView } from '@/ui/json-view'
import { ExternalLink } from '@/ui/link'
import { Markdown } from '@/ui/markdown'
import { Notice } from '@/ui/notice'
import { bytesOfBase64, type Content, contentOf, fileName, isPicture } from './content'
import { sameJson } from './schema'

/** Texts longer than this are cut; what is copied is whole. */
const LONGEST_TEXT = 200_000
/** Larger pictures (in Base64 characters) are saved, not shown. */
const LARGEST_PICTURE = 12_000_000

/** What a call was answered with, each part by its type. */
export function ResultView({
  result,
  onRead,
}: {
  result: JsonObject
  /** Reads a resource that the answer links to. */
  onRead: (uri: string) => void
}) {
  const structured = result['structuredContent']
  const all = contentOf(result)
  // Servers say structured content a second time, as text, for clients that do not know it.
  const parts =
    structured === undefined
      ? all
      : all.filter((part) => part.kind !== 'text' || !sameJson(jsonIn(part.text), structured))
  return (
    <div className="flex flex-col gap-3">
      {result['isError'] === true && (
        <Notice tone="bad" title={t('The tool says that it failed')}>
          {t('The call itself worked. What the tool said is below.')}
        </Notice>
      )}
      {isObject(result['inputRequests']) && (
        <Notice tone="warn" title={t('The server asks for more')}>
          {t(
            'It wants input from the client that the playground cannot give. What it asks is in the raw answer.',
          )}
        </Notice>
      )}
      {parts.map((part, place) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a part is its place in the answer.
        <Part key={place} part={part} label={t('Part {number}', { number: place + 1 })} onRead={onRead} />
      ))}
      {structured !== undefined && (
        <Block
          head={
            parts.length < all.length ? t('Structured content, also given as text') : t('Structured content')
          }
          copy={() => JSON.stringify(structured, null, 2)}
        >
          <JsonView value={structured} label={t('Structured content')} />
        </Block>
      )}
      {parts.length === 0 && structured === undefined && (
        <p className="text-muted">{t('The answer has no content.')}</p>
      )}
    </div>
  )
}

function Part({
  part,
  label,
  onRead,
}: {
  part: Content
  /** What scrolls in it is called so: no two of an answer the same. */
  label: string
  onRead: (uri: string) => void
}) {
  switch (part.kind) {
    case 'text':
      return <TextPart head={part.role ?? t('Text')} label={label} text={part.text} />
    case 'resource':
      return (
        <TextPart
          head={part.uri || t('Resource')}
          label={label}
          text={part.text}
          mimeType={part.mimeType}
          saved={part.uri}
        />
      )
    case 'image':
      return <Picture part={part} />
    case 'audio':
      return <FilePart head={part.role ?? t('Audio')} data={part.data} mimeType={part.mimeType} uri="audio" />
    case 'file':
      return (
        <FilePart head={part.uri || t('Resource')} data={part.data} mimeType={part.mimeType} uri={part.uri} />
      )
    case 'link':
      return (
        <Block
          head={t('Link to a resource')}
          mimeType={part.mimeType}
          copy={part.uri}
          actions={
            <Button size="small" icon={BookOpen} onClick={() => onRead(part.uri)}>
              {t('Read')}
            </Button>
          }
        >
          {part.name !== '' && <p className="font-medium">{oneLine(part.name, 200)}</p>}
          <p className="id wrap-anywhere">
            <ExternalLink href={part.uri}>{oneLine(part.uri, 2000)}</ExternalLink>
          </p>
          {part.description !== '' && <p className="text-muted">{plainText(part.description, 2000)}</p>}
        </Block>
      )
    case 'unknown':
      return (
        <Block head={t('Content of a kind that this console does not know')}>
          <JsonView value={part.value} label={label} />
        </Block>
      )
  }
}

type View = 'text' | 'json' | 'markdown'

function TextPart({
  head,
  label,
  text,
  mimeType = '',
  saved,
}: {
  head: string
  label: string
  text: string
  mimeType?: string
  saved?: string
}) {
  const json = jsonIn(text)
  const markdown =
    mimeType === 'text/markdown' || /^(#{1,6} |\s*[-*] |```)|\*\*[^*]+\*\*|\]\(https?:/m.test(text)
  const views: View[] = [
    'text',
    ...(json === undefined ? [] : ['json' as const]),
    ...(markdown && json === undefined ? ['markdown' as const] : []),
  ]
  const [view, setView] = useState<View>(json === undefined ? 'text' : 'json')
  const names: Record<View, string> = { text: t('Text'), json: t('JSON'), markdown: t('Markdown') }
  return (
    <Block
      head={head}
      mimeType={mimeType}
      copy={text}
      actions={
        <>
          {views.length > 1 && (
            // biome-ignore lint/a11y/useSemanticElements: a fieldset is for what is sent with a form.
            <div role="group" aria-label={t('Show as')} className="flex overflow-clip rounded-md border">
              {views.map((one) => (
                <button
                  key={one}
                  type="button"
                  aria-pressed={view === one}
                  onClick={() => setView(one)}
                  className={`min-h-6 px-2 text-xs ${view === one ? 'bg-accent-soft text-accent' : 'text-muted hover:bg-hover'}`}
                >
                  {names[one]}
                </button>
              ))}
            </div>
          )}
          {saved !== undefined && (
            <Button size="small" icon={Download} onClick={() => saveFile(fileName(saved, mimeType), text)}>
              {t('Save')}
            </Button>
          )}
        </>
      }
    >
      {view === 'json' && json !== undefined ? (
        <JsonView value={json} label={label} />
      ) : view === 'markdown' ? (
        <section
          aria-label={label}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="max-h-[32rem] overflow-auto"
        >
          <Markdown text={text} />
        </section>
      ) : (
        <pre
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          tabIndex={0}
          className="max-h-[32rem] overflow-auto text-sm wrap-anywhere whitespace-pre-wrap"
        >
          {plainText(text, LONGEST_TEXT)}
        </pre>
      )}
    </Block>
  )
}

function Picture({ part }: { part: Extract<Content, { kind: 'image' }> }) {
  const [broken, setBroken] = useState(false)
  const shown = isPicture(part.mimeType) && part.data.length <= LARGEST_PICTURE && !broken
  if (!shown) {
    return (
      <FilePart
        head={part.role ?? t('Picture')}
        data={part.data}
        mimeType={part.mimeType}
        uri="picture"
        broken={broken}
      />
    )
  }
  return (
    <Block
      head={part.role ?? t('Picture')}
      mimeType={part.mimeType}
      actions={<SaveButton data={part.data} name={fileName('picture', part.mimeType)} />}
    >
      <img
        src={`data:${part.mimeType};base64,${part.data.replace(/[^A-Za-z0-9+/=]/g, '')}`}
        alt={t('The picture that the server answered with')}
        onError={() => setBroken(true)}
        className="max-h-[32rem] max-w-full rounded border bg-sunken object-contain"
      />
    </Block>
  )
}

function FilePart({
  head,
  data,
  mimeType,
  uri,
  broken = false,
}: {
  head: string
  data: string
  mimeType: string
  uri: string
  broken?: boolean
}) {
  return (
    <Block
      head={head}
      mimeType={mimeType}
      actions={<SaveButton data={data} name={fileName(uri, mimeType)} />}
    >
      <p className="text-muted">
        {broken && `${t('This is no picture that the browser can show.')} `}
        {t('{size}; save it to open it with another program.', { size: formatBytes((data.length * 3) / 4) })}
      </p>
    </Block>
  )
}

function SaveButton({ data, name }: { data: string; name: string }) {
  const bytes = bytesOfBase64(data)
  return (
    <Button
      size="small"
      icon={Download}
      disabledReason={bytes === undefined ? t('The server did not send Base64') : undefined}
      onClick={() => bytes !== undefined && saveFile(name, bytes)}
    >
      {t('Save')}
    </Button>
  )
}

function Block({
  head,
  mimeType = '',
  actions,
  copy,
  children,
}: {
  head: string
  mimeType?: string
  actions?: ReactNode
  copy?: string | (() => string)
  children: ReactNode
}) {
  return (
    <div className="min-w-0 rounded-md border">
      <div className="flex min-h-9 flex-wrap items-center gap-2 border-b bg-sunken px-3 py-1 text-sm">
        <span className="min-w-0 truncate text-muted">{oneLine(head, 200)}</span>
        {mimeType !== '' && <Badge mono>{oneLine(mimeType, 60)}</Badge>}
        <span className="ml-auto flex items-center gap-1.5">
          {actions}
          {copy !== undefined && <CopyButton text={copy} label={t('Copy')} />}
        </span>
      </div>
      <div className="p-3">{children}</div>
    </div>
  )
}

function jsonIn(text: string): unknown {
  if (text.length > 2_000_000 || !/^\s*[[{]/.test(text)) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
