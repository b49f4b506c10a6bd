import { useQuery, useSuspenseQuery } from '@tanstack/react-query'
import { useNavigate } from '@tanstack/react-router'
import { ArrowLeft, Boxes, Wrench } from 'lucide-react'
import { useDeferredValue, useMemo, useRef, useState } from 'react'
import { mcpPromptsQuery, mcpResourcesQuery, mcpToolsQuery } from '@/api/mcp'
import { useSession } from '@/api/session'
import {
  serverGeneration,
  type Target,
  targetQuery,
  targetServerQuery,
  targetToolsetQuery,
  toolsetGeneration,
} from '@/features/mcp/public/target'
import { TargetList, TargetSwitch } from '@/features/mcp/public/target-list'
import { phaseKind, reasonText, ServerStatus } from '@/features/servers/public/phase'
import { cx } from '@/lib/cx'
import { formatNumber, readableTimes } from '@/lib/format'
import { type McpPrompt, type McpResource, type McpTool, resourcesOf } from '@/lib/mcp/things'
import { t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { Button } from '@/ui/button'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { ErrorState } from '@/ui/error-state'
import { ButtonLink, Link } from '@/ui/link'
import { Notice } from '@/ui/notice'
import { Breadcrumbs, PageHeader } from '@/ui/page-header'
import { SearchInput } from '@/ui/search-input'
import { SkeletonLines } from '@/ui/skeleton'
import { TickedText } from '@/ui/ticked-text'
import { addRun, forgetRuns, type PastRun, pastRuns } from '../history'
import { HistoryCard } from '../history-card'
import { type Item, RequestPanel } from '../request-panel'
import type { Request, RunState } from '../run'

/** What can be run, by kind. */
export type ItemKind = 'tool' | 'resource' | 'prompt'

/** What the page's address says. */
export interface PlaygroundSearch {
  kind?: ItemKind | undefined
  item?: string | undefined
}

/** Where a server or toolset is chosen. */
export function PlaygroundPicker() {
  return (
    <>
      <PageHeader title={t('Playground')}>
        {t('Try the tools, resources and prompts of a server or toolset, as a client would.')}
      </PageHeader>
      <TargetList to="/playground/$name" />
    </>
  )
}

/** Tries what a server or toolset offers. */
export function PlaygroundPage({
  name,
  search,
  onSearchChange,
}: {
  name: string
  search: PlaygroundSearch
  onSearchChange: (search: PlaygroundSearch) => void
}) {
  const { data: target } = useSuspenseQuery(targetQuery(name))
  const navigate = useNavigate()
  return (
    <>
      <PageHeader
        breadcrumbs={
          <Breadcrumbs>
            <Link to="/playground">{t('Playground')}</Link>
          </Breadcrumbs>
        }
        title={<span className="id text-[1.1em]">{name}</span>}
        meta={<TargetState target={target} />}
        actions={
          <>
            <TargetSwitch
              name={name}
              onChange={(next) => void navigate({ to: '/playground/$name', params: { name: next } })}
            />
            <ButtonLink to="/connect/$name" params={{ name }}>
              {t('Connect a client')}
            </ButtonLink>
          </>
        }
      />
      <Playground key={name} target={target} search={search} onSearchChange={onSearchChange} />
    </>
  )
}

function TargetState({ target }: { target: Target }) {
  const { data: server } = useQuery(targetServerQuery(target))
  if (target.kind === 'toolset') return <span className="text-muted">{t('Toolset')}</span>
  return server === undefined ? null : <ServerStatus server={server} />
}

/** Where its MCP is, and what changes when that may offer something else. */
function useEndpoint(target: Target) {
  const server = useQuery(targetServerQuery(target))
  const toolset = useQuery(targetToolsetQuery(target))
  if (target.kind === 'server') {
    return {
      mcpPath: server.data?.mcp_path,
      generation: server.data === undefined ? '' : serverGeneration(server.data),
      server: server.data,
      error: server.error,
    }
  }
  return {
    mcpPath: toolset.data?.mcp_path,
    generation: toolset.data === undefined ? '' : toolsetGeneration(toolset.data),
    server: undefined,
    error: toolset.error,
  }
}

function Playground({
  target,
  search,
  onSearchChange,
}: {
  target: Target
  search: PlaygroundSearch
  onSearchChange: (search: PlaygroundSearch) => void
}) {
  const { mcpPath, generation, server, error } = useEndpoint(target)
  // A server that does not answer now is not asked; what it offered before stays where it is.
  const answers = server === undefined || server.phase === 'ready' || server.phase === 'degraded'
  const enabled = mcpPath !== undefined && answers
  const tools = useQuery({
    ...mcpToolsQuery(mcpPath ?? '', generation),
    enabled,
    placeholderData: (before) => before,
  })
  const resources = useQuery({
    ...mcpResourcesQuery(mcpPath ?? '', generation),
    enabled,
    placeholderData: (before) => before,
  })
  const prompts = useQuery({
    ...mcpPromptsQuery(mcpPath ?? '', generation),
    enabled,
    placeholderData: (before) => before,
  })
  const session = useSession()
  const person = `${session.organization}/${session.display}`
  const [runs, setRuns] = useState(() => pastRuns(person))
  const drafts = useRef(new Map<string, unknown>())
  const [again, setAgain] = useState(0)

  const kind = search.kind ?? 'tool'
  const query = { tool: tools, resource: resources, prompt: prompts }[kind]
  const item = useMemo(
    () => itemOf(kind, search.item, tools.data, resources.data, prompts.data),
    [kind, search.item, tools.data, resources.data, prompts.data],
  )
  const ended = (request: Request, end: RunState & { took: number }) =>
    setRuns(addRun(person, pastRun(target, request, end)))
  const repeat = (run: PastRun) => {
    drafts.current.set(`${run.kind} ${run.item}`, parsed(run.input))
    setAgain(again + 1)
    if (run.target === target.name) onSearchChange({ kind: run.kind, item: run.item })
  }
  const key = `${kind} ${search.item}`
  // What is known, and what was typed, stays while Toolyard is away.
  if (mcpPath === undefined && error !== null && error !== undefined) {
    return (
      <Card>
        <ErrorState error={error} />
      </Card>
    )
  }
  return (
    <>
      {server !== undefined && phaseKind(server.phase) !== 'good' && (
        <div className="mb-4">
          <Notice
            tone={phaseKind(server.phase) === 'bad' ? 'bad' : 'warn'}
            title={t('The server is not ready: {reason}', { reason: reasonText(server.reason) })}
            actions={
              <Link to="/servers/$name" params={{ name: server.name }}>
                {t('Open the server')}
              </Link>
            }
          >
            <TickedText text={readableTimes(server.message ?? '')} limit={600} />
          </Notice>
        </div>
      )}
      <div className="grid gap-4 lg:grid-cols-[19rem_minmax(0,1fr)]">
        <div className={cx('flex min-w-0 flex-col gap-4', search.item !== undefined && 'max-lg:hidden')}>
          <Offers
            kind={kind}
            counts={{
              tool: tools.data?.length,
              resource: resources.data?.length,
              prompt: prompts.data?.length,
            }}
            things={thingsOf(kind, tools.data, resources.data, prompts.data)}
            query={query}
            waiting={!answers}
            chosen={search.item}
            onKindChange={(next) => onSearchChange({ kind: next === 'tool' ? undefined : next })}
            onChoose={(next) => onSearchChange({ kind: kind === 'tool' ? undefined : kind, item: next })}
          />
        </div>
        <div className="flex min-w-0 flex-col gap-4">
          {search.item !== undefined && (
            <Button
              variant="ghost"
              icon={ArrowLeft}
              className="w-fit lg:hidden"
              onClick={() => onSearchChange({ kind: search.kind })}
            >
              {t('All it offers')}
            </Button>
          )}
          {item !== undefined && mcpPath !== undefined ? (
            <RequestPanel
              key={`${key} ${again}`}
              target={target.name}
              mcpPath={mcpPath}
              item={item}
              seed={drafts.current.get(key)}
              onInput={(input) => drafts.current.set(key, input)}
              onEnd={ended}
              onRead={(uri) => onSearchChange({ kind: 'resource', item: uri })}
            />
          ) : (
            <Card className={search.item === undefined ? 'max-lg:hidden' : undefined}>
              {search.item !== undefined && answers && query.isPending ? (
                <SkeletonLines count={6} />
              ) : search.item !== undefined && query.data !== undefined ? (
                <EmptyState icon={Wrench} title={t('It is not offered any more')}>
                  {t('Choose another one of the list.')}
                </EmptyState>
              ) : (
                <EmptyState icon={Wrench} title={t('Choose what to try')}>
                  {t('Tools, resources and prompts are in the list; what they answer is shown here.')}
                </EmptyState>
              )}
            </Card>
          )}
          <HistoryCard
            runs={runs}
            target={target.name}
            onRepeat={repeat}
            onForget={() => {
              forgetRuns(person)
              setRuns([])
            }}
          />
        </div>
      </div>
    </>
  )
}

interface Thing {
  id: string
  name: string
  title: string
  description: string
}

function Offers({
  kind,
  counts,
  things,
  query,
  waiting,
  chosen,
  onKindChange,
  onChoose,
}: {
  kind: ItemKind
  counts: Record<ItemKind, number | undefined>
  things: Thing[] | undefined
  query: { error: unknown; isFetching: boolean; refetch: () => unknown }
  waiting: boolean
  chosen: string | undefined
  onKindChange: (kind: ItemKind) => void
  onChoose: (item: string) => void
}) {
  const [text, setText] = useState('')
  const wanted = useDeferredValue(text).trim().toLowerCase()
  const labels: ReadonlyArray<[ItemKind, string]> = [
    ['tool', t('Tools')],
    ['resource', t('Resources')],
    ['prompt', t('Prompts')],
  ]
  const fitting = (things ?? []).filter((one) =>
    `${one.name} ${one.title} ${one.description}`.toLowerCase().includes(wanted),
  )
  return (
    <section
      aria-label={t('What it offers')}
      className="flex min-w-0 flex-col rounded-lg border bg-surface lg:sticky lg:top-4 lg:max-h-[calc(100dvh-2rem)]"
    >
      {/* biome-ignore lint/a11y/useSemanticElements: a fieldset is for what is sent with a form. */}
      <div role="group" aria-label={t('Kind')} className="flex gap-1 border-b p-1.5">
        {labels.map(([value, label]) => (
          <button
            key={value}
            type="button"
            aria-pressed={kind === value}
            onClick={() => onKindChange(value)}
            className={cx(
              'flex min-h-control-small min-w-0 flex-1 items-center justify-center gap-1.5 rounded-md px-1.5 text-sm',
              kind === value ? 'bg-accent-soft font-medium text-accent' : 'text-muted hover:bg-hover',
            )}
          >
            {label}
            {counts[value] !== undefined && (
              <span className="tabular text-xs">{formatNumber(counts[value])}</span>
            )}
          </button>
        ))}
      </div>
      {(things?.length ?? 0) > 6 && (
        <div className="border-b p-2">
          <SearchInput
            label={t('Search what it offers')}
            placeholder={t('Name or description')}
            value={text}
            onValueChange={setText}
            className="max-w-none"
          />
        </div>
      )}
      {things === undefined ? (
        waiting ? (
          <EmptyState icon={Boxes} title={t('It does not answer now')}>
            {t('What it offers is shown here as soon as it is ready.')}
          </EmptyState>
        ) : query.error !== null ? (
          <ErrorState error={query.error} onRetry={() => void query.refetch()} retrying={query.isFetching} />
        ) : (
          <div className="p-pad">
            <SkeletonLines count={8} />
          </div>
        )
      ) : fitting.length === 0 ? (
        <EmptyState icon={Boxes} title={things.length === 0 ? t('It offers none') : t('Nothing fits')} />
      ) : (
        <ul className="min-h-0 overflow-y-auto p-1">
          {fitting.slice(0, 1000).map((one) => (
            <li key={one.id}>
              <button
                type="button"
                aria-current={one.id === chosen ? 'true' : undefined}
                onClick={() => onChoose(one.id)}
                className={cx(
                  'block w-full rounded-md px-2.5 py-1.5 text-left',
                  one.id === chosen ? 'bg-accent-soft' : 'hover:bg-hover',
                )}
              >
                <span className="id block truncate">{one.name}</span>
                <span className="block truncate text-sm text-muted">{one.description || one.title}</span>
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}

function thingsOf(
  kind: ItemKind,
  tools: McpTool[] | undefined,
  resources: McpResource[] | undefined,
  prompts: McpPrompt[] | undefined,
): Thing[] | undefined {
  if (kind === 'resource') {
    return resources?.map((one) => ({
      id: one.uri,
      name: oneLine(one.title ?? one.name, 120),
      title: '',
      description: oneLine(one.uri, 200),
    }))
  }
  return (kind === 'tool' ? tools : prompts)?.map((one) => ({
    id: one.name,
    name: oneLine(one.name, 120),
    title: oneLine(one.title, 120),
    description: oneLine(one.description, 200),
  }))
}

function itemOf(
  kind: ItemKind,
  id: string | undefined,
  tools: McpTool[] | undefined,
  resources: McpResource[] | undefined,
  prompts: McpPrompt[] | undefined,
): Item | undefined {
  if (kind === 'tool') {
    const tool = tools?.find((one) => one.name === id)
    return tool && { kind, tool }
  }
  if (kind === 'resource') {
    const resource = resources?.find((one) => one.uri === id)
    if (resource !== undefined) return { kind, resource }
    // What a tool linked to need not be in the list.
    const unlisted = resources === undefined || id === undefined ? [] : resourcesOf([{ uri: id }])
    return unlisted[0] && { kind, resource: unlisted[0] }
  }
  const prompt = prompts?.find((one) => one.name === id)
  return prompt && { kind, prompt }
}

function pastRun(target: Target, request: Request, end: RunState & { took: number }): PastRun {
  const failed = end.state === 'answered' && end.answer.result['isError'] === true
  return {
    id: `${Date.now()} ${Math.random()}`,
    at: new Date().toISOString(),
    target: target.name,
    kind: request.kind,
    item: request.kind === 'resource' ? request.listed : request.name,
    input: JSON.stringify(request.input),
    outcome:
      end.state === 'answered'
        ? failed
          ? 'tool_error'
          : 'answered'
        : end.state === 'cancelled'
          ? 'cancelled'
          : 'failed',
    took: end.took,
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return {}
  }
}
