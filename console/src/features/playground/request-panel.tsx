import { useSuspenseQuery } from '@tanstack/react-query'
import { Play, Square, Terminal } from 'lucide-react'
import { type FormEvent, type KeyboardEvent, useId, useMemo, useState } from 'react'
import { getConnect } from '@/api/generated/connect'
import { q } from '@/api/queries'
import { useDenied } from '@/api/session'
import { formatBytes, formatDuration, formatTokens } from '@/lib/format'
import { isObject, type JsonObject } from '@/lib/mcp/client'
import {
  fillTemplate,
  type McpPrompt,
  type McpResource,
  type McpTool,
  templateVariables,
  tokensOf,
} from '@/lib/mcp/things'
import { t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge } from '@/ui/badge'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { CodeBlock } from '@/ui/code-block'
import { CopyButton, copyText } from '@/ui/copy-button'
import { ErrorNote } from '@/ui/error-state'
import { JsonView } from '@/ui/json-view'
import { LiveRegion } from '@/ui/live-region'
import { Menu } from '@/ui/menu'
import { Notice } from '@/ui/notice'
import { Progress } from '@/ui/progress'
import { Elapsed } from '@/ui/relative-time'
import { Tabs } from '@/ui/tabs'
import { toast } from '@/ui/toast'
import { cliCommand, curlCommand } from './commands'
import { ResultView } from './result-view'
import { type Request, type RunState, useRun } from './run'
import { initialOf, inputForm, type Node, problemsOf, Unparsed } from './schema'
import { JsonText, SchemaFields } from './schema-form'

/** What was chosen to be run. */
export type Item =
  | { kind: 'tool'; tool: McpTool }
  | { kind: 'resource'; resource: McpResource }
  | { kind: 'prompt'; prompt: McpPrompt }

/** A thing that can be run: what it is, its input, and what it answered. */
export function RequestPanel({
  target,
  mcpPath,
  item,
  seed,
  onInput,
  onEnd,
  onRead,
}: {
  target: string
  mcpPath: string
  item: Item
  /** What was typed here before, or ran before. */
  seed: unknown
  /** Hears what is typed, to give it back as `seed`. */
  onInput: (input: unknown) => void
  onEnd: (request: Request, end: RunState & { took: number }) => void
  /** Goes to a resource. */
  onRead: (uri: string) => void
}) {
  const form = useMemo(() => formOf(item), [item])
  const [input, setInput] = useState<unknown>(() => seed ?? initialOf(form) ?? {})
  const [tried, setTried] = useState(false)
  const [view, setView] = useState<'form' | 'json'>('form')
  const { run, start, cancel } = useRun(mcpPath, onEnd)
  const denied = useDenied('tool:call')
  const jsonId = useId()
  const running = run.state === 'running'
  const problems = problemsOf(form, input)
  const empty = form.shape.kind === 'object' && form.shape.properties.length === 0
  const change = (next: unknown) => {
    const value = next ?? {}
    setInput(value)
    onInput(value)
  }
  const request = requestOf(item, input)
  const submit = (event?: FormEvent<HTMLFormElement>) => {
    event?.preventDefault()
    setTried(true)
    const target = event?.currentTarget
    // The JSON may say what the form would not: then it is the server that judges it.
    if (request === undefined || (view === 'form' && Object.keys(problems).length > 0)) {
      requestAnimationFrame(() => target?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus())
      return
    }
    if (denied === undefined) void start(request)
  }
  const press = (event: KeyboardEvent<HTMLFormElement>) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault()
      event.currentTarget.requestSubmit()
    }
  }
  const verb = item.kind === 'tool' ? t('Run') : item.kind === 'resource' ? t('Read') : t('Fill in')
  return (
    <div className="flex min-w-0 flex-col gap-4">
      <Card
        title={<span className="id wrap-anywhere">{oneLine(nameOf(item), 300)}</span>}
        actions={<Facts item={item} />}
      >
        <About item={item} />
        <form noValidate onSubmit={submit} onKeyDown={press} className="flex flex-col gap-4">
          {empty ? (
            <p className="text-sm text-muted">{t('It takes no input.')}</p>
          ) : (
            <Tabs
              label={t('Input')}
              value={view}
              onValueChange={setView}
              tabs={[
                {
                  value: 'form',
                  label: t('Form'),
                  content:
                    input instanceof Unparsed ? (
                      <Notice tone="warn" title={t('The JSON cannot be read')}>
                        {t('Correct it in the other tab; then it is here as a form again.')}
                      </Notice>
                    ) : (
                      <SchemaFields
                        node={form}
                        value={input}
                        onChange={change}
                        problems={tried ? problems : {}}
                      />
                    ),
                },
                {
                  value: 'json',
                  label: t('JSON'),
                  content: (
                    <JsonText
                      id={jsonId}
                      label={t('Input as JSON')}
                      hideLabel
                      rows={8}
                      value={input}
                      onChange={change}
                      error={
                        input instanceof Unparsed
                          ? t('Is not JSON')
                          : isObject(input)
                            ? undefined
                            : t('Must be an object')
                      }
                    />
                  ),
                },
              ]}
            />
          )}
          <div className="flex flex-wrap items-center gap-2">
            <Button type="submit" variant="primary" icon={Play} busy={running} disabledReason={denied}>
              {verb}
            </Button>
            {running && (
              <Button icon={Square} onClick={cancel}>
                {t('Cancel')}
              </Button>
            )}
            <CopyAs target={target} request={request} />
          </div>
        </form>
      </Card>
      <Outcome run={run} onRead={onRead} />
    </div>
  )
}

function Outcome({ run, onRead }: { run: RunState; onRead: (uri: string) => void }) {
  if (run.state === 'none') return null
  return (
    <>
      <LiveRegion>{spoken(run)}</LiveRegion>
      {run.state === 'running' && (
        <Card
          title={t('Running')}
          actions={<Elapsed since={new Date(run.since)} className="tabular text-muted" />}
        >
          <div className="flex flex-col gap-2">
            <Progress
              label={t('Progress of the call')}
              value={run.progress?.total === undefined ? undefined : run.progress.progress}
              max={run.progress?.total ?? 1}
            />
            <p className="text-sm text-muted">
              {run.progress === undefined ? t('Waiting for the answer') : progressText(run.progress)}
            </p>
          </div>
        </Card>
      )}
      {run.state === 'cancelled' && (
        <Notice title={t('Cancelled')}>
          {t('After {time}. The server was told; what it did until then stays done.', {
            time: formatDuration(run.took),
          })}
        </Notice>
      )}
      {run.state === 'failed' && (
        <Card
          title={t('No answer')}
          actions={<span className="tabular text-muted">{formatDuration(run.took)}</span>}
        >
          <ErrorNote error={run.error} />
        </Card>
      )}
      {run.state === 'answered' && (
        <Card
          title={t('Answer')}
          actions={
            <span className="tabular text-sm text-muted">
              {formatDuration(run.took)} · {formatBytes(run.answer.bytes)}
            </span>
          }
        >
          <Answered result={run.answer.result} onRead={onRead} />
        </Card>
      )}
    </>
  )
}

function Answered({ result, onRead }: { result: JsonObject; onRead: (uri: string) => void }) {
  const [view, setView] = useState<'result' | 'raw'>('result')
  return (
    <Tabs
      label={t('Answer')}
      value={view}
      onValueChange={setView}
      tabs={[
        { value: 'result', label: t('Result'), content: <ResultView result={result} onRead={onRead} /> },
        {
          value: 'raw',
          label: t('Raw answer'),
          content: (
            <div className="flex flex-col gap-2">
              <div className="flex justify-end">
                <CopyButton text={() => JSON.stringify(result, null, 2)}>{t('Copy')}</CopyButton>
              </div>
              <JsonView value={result} label={t('Raw answer')} openDepth={3} />
            </div>
          ),
        },
      ]}
    />
  )
}

function About({ item }: { item: Item }) {
  const text = plainText(descriptionOf(item), 4000)
  const schema =
    item.kind === 'tool' ? item.tool.raw : item.kind === 'prompt' ? item.prompt.raw : item.resource.raw
  return (
    <div className="mb-4 flex flex-col gap-2">
      {text !== '' && <p className="max-w-prose whitespace-pre-wrap text-muted">{text}</p>}
      <details>
        <summary className="w-fit rounded text-sm text-muted hover:text-text">{t('Definition')}</summary>
        <div className="mt-2">
          <CodeBlock code={JSON.stringify(schema, null, 2)} label={t('Definition')} wrap />
        </div>
      </details>
    </div>
  )
}

function Facts({ item }: { item: Item }) {
  if (item.kind === 'resource') {
    const { mimeType, size } = item.resource
    return (
      <>
        {mimeType !== undefined && <Badge mono>{oneLine(mimeType, 60)}</Badge>}
        {size !== undefined && <Badge>{formatBytes(size)}</Badge>}
      </>
    )
  }
  if (item.kind === 'prompt') return null
  const { hints, bytes } = item.tool
  const claimed = t('The server says so; nobody has checked it')
  return (
    <>
      {hints.readOnly === true && (
        <Badge tone="good" title={claimed}>
          {t('only reads')}
        </Badge>
      )}
      {hints.readOnly === false && hints.destructive === true && (
        <Badge tone="warn" title={claimed}>
          {t('may destroy')}
        </Badge>
      )}
      {hints.idempotent === true && hints.readOnly !== true && (
        <Badge title={claimed}>{t('repeatable')}</Badge>
      )}
      {hints.openWorld === true && <Badge title={claimed}>{t('reaches out')}</Badge>}
      <Badge title={t('What it takes of a model’s context: an estimate of four bytes a token')}>
        {t('about {tokens}', { tokens: formatTokens(tokensOf(bytes)) })}
      </Badge>
    </>
  )
}

function CopyAs({ target, request }: { target: string; request: Request | undefined }) {
  const { data: connect } = useSuspenseQuery(q(getConnect, { path: { name: target }, query: {} }))
  const why = request === undefined ? t('The input is not an object') : undefined
  const copy = (text: string | undefined) => {
    if (text === undefined) return
    copyText(text).then(
      () => toast.done({ title: t('Copied') }),
      () => toast.failed({ title: t('Could not copy'), description: t('the browser did not allow it') }),
    )
  }
  return (
    <Menu
      align="start"
      trigger={
        <Button icon={Terminal} variant="ghost">
          {t('Copy as')}
        </Button>
      }
      items={[
        {
          label: t('curl'),
          disabledReason: why,
          onSelect: () => copy(request && curlCommand(connect.url, request)),
        },
        {
          label: t('Toolyard’s command line'),
          disabledReason: why ?? (request?.kind === 'tool' ? undefined : t('Only tools have a command')),
          onSelect: () => copy(request && cliCommand(target, request)),
        },
      ]}
    />
  )
}

function nameOf(item: Item): string {
  if (item.kind === 'tool') return item.tool.name
  return item.kind === 'prompt' ? item.prompt.name : item.resource.uri
}

function descriptionOf(item: Item): string {
  if (item.kind === 'tool') return item.tool.description
  return item.kind === 'prompt' ? item.prompt.description : item.resource.description
}

/** Prompts and templates of resources take texts: a form as for a tool. */
function formOf(item: Item): Node {
  if (item.kind === 'tool') return inputForm(item.tool.inputSchema)
  if (item.kind === 'prompt') {
    return inputForm({
      required: item.prompt.arguments.filter((one) => one.required).map((one) => one.name),
      properties: Object.fromEntries(
        item.prompt.arguments.map((one) => [one.name, { type: 'string', description: one.description }]),
      ),
    })
  }
  const names = item.resource.template ? templateVariables(item.resource.uri) : []
  return inputForm({
    required: names,
    properties: Object.fromEntries(names.map((name) => [name, { type: 'string' }])),
  })
}

/** The request that an input makes; `undefined` while it makes none. */
function requestOf(item: Item, input: unknown): Request | undefined {
  if (!isObject(input) || input instanceof Unparsed) return undefined
  if (item.kind === 'tool') return { kind: 'tool', name: item.tool.name, input }
  const texts = Object.fromEntries(
    Object.entries(input).map(([name, value]) => [
      name,
      typeof value === 'string' ? value : JSON.stringify(value),
    ]),
  )
  if (item.kind === 'prompt') return { kind: 'prompt', name: item.prompt.name, input: texts }
  const { uri, template } = item.resource
  return { kind: 'resource', uri: template ? fillTemplate(uri, texts) : uri, listed: uri, input: texts }
}

function progressText(progress: NonNullable<Extract<RunState, { state: 'running' }>['progress']>): string {
  const count =
    progress.total === undefined
      ? t('Step {step}', { step: progress.progress })
      : t('{step} of {total}', { step: progress.progress, total: progress.total })
  return progress.message === undefined ? count : `${count} · ${oneLine(progress.message, 300)}`
}

function spoken(run: RunState): string {
  switch (run.state) {
    case 'none':
      return ''
    case 'running':
      return run.progress === undefined ? t('Running') : progressText(run.progress)
    case 'answered':
      return run.answer.result['isError'] === true ? t('The tool says that it failed') : t('Answered')
    case 'failed':
      return t('No answer')
    case 'cancelled':
      return t('Cancelled')
  }
}
