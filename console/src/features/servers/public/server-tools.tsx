import { useQuery, useSuspenseQuery } from '@tanstack/react-query'
import { FileText, MessageSquareQuote, Wrench } from 'lucide-react'
import { useDeferredValue } from 'react'
import { mcpPromptsQuery, mcpResourcesQuery, mcpToolsQuery } from '@/api/mcp'
import { useForbidden } from '@/api/session'
import { serverGeneration } from '@/features/mcp/public/target'
import { formatNumber, formatTokens } from '@/lib/format'
import { isObject } from '@/lib/mcp/client'
import {
  bytesOf,
  type McpPrompt,
  type McpResource,
  type McpTool,
  type ToolHints,
  tokensOf,
} from '@/lib/mcp/things'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { Badge, type Tone } from '@/ui/badge'
import { Card } from '@/ui/card'
import { EmptyState } from '@/ui/empty-state'
import { ErrorState } from '@/ui/error-state'
import { JsonView } from '@/ui/json-view'
import { SearchInput } from '@/ui/search-input'
import { SkeletonLines } from '@/ui/skeleton'
import { Tabs } from '@/ui/tabs'
import { mainInstance } from '../row'
import { phaseText } from './phase'
import { serverQuery } from './queries'

/** Which of what a server offers is shown. */
export type Offered = 'tools' | 'resources' | 'prompts'

/** What the page's address says. */
export interface ToolsSearch {
  search?: string | undefined
  list?: Offered | undefined
}

/** What a server offers by MCP: its tools, resources and prompts, and what its tools cost in a model's context. */
export function ServerTools({
  name,
  search,
  onSearchChange,
}: {
  name: string
  search: ToolsSearch
  onSearchChange: (changes: ToolsSearch) => void
}) {
  const { data: server } = useSuspenseQuery(serverQuery(name))
  const denied = useForbidden('tool:call')
  const answers = server.phase === 'ready' || server.phase === 'degraded'
  const generation = serverGeneration(server)
  const enabled = denied === undefined && answers
  const query = useQuery({ ...mcpToolsQuery(server.mcp_path, generation), enabled })
  const resources = useQuery({ ...mcpResourcesQuery(server.mcp_path, generation), enabled })
  const prompts = useQuery({ ...mcpPromptsQuery(server.mcp_path, generation), enabled })
  const wanted = useDeferredValue(search.search ?? '')
  if (denied !== undefined) return <EmptyState title={t('You may not use its tools')}>{denied}</EmptyState>
  if (!answers && query.data === undefined) {
    const tools = mainInstance(server)?.mcp?.tools
    return (
      <Card>
        <EmptyState icon={Wrench} title={t('It is not ready: {phase}', { phase: phaseText(server.phase) })}>
          {tools === undefined
            ? t('What it offers can be seen once it answers.')
            : plural(
                tools,
                'It had {count} tool when it answered last.',
                'It had {count} tools when it answered last.',
              )}
        </EmptyState>
      </Card>
    )
  }
  if (query.data === undefined) {
    return (
      <Card flush>
        {query.error === null ? (
          <SkeletonLines count={10} rows />
        ) : (
          <ErrorState error={query.error} onRetry={() => void query.refetch()} retrying={query.isFetching} />
        )}
      </Card>
    )
  }
  const found: Found = {
    tools: query.data.map(ofTool),
    resources: resources.data?.map(ofResource),
    prompts: prompts.data?.map(ofPrompt),
  }
  const list = search.list ?? 'tools'
  const label = (text: string, all: readonly Definition[] | undefined) => (
    <>
      {text}{' '}
      <span className="tabular text-sm text-faint">{all === undefined ? '–' : formatNumber(all.length)}</span>
    </>
  )
  return (
    <div className="flex flex-col gap-3">
      <div className="flex flex-wrap items-center gap-x-4 gap-y-2">
        <SearchInput
          label={t('Search what it offers')}
          placeholder={t('Name or description')}
          value={search.search ?? ''}
          onValueChange={(text) => onSearchChange({ search: text || undefined })}
          className="max-sm:max-w-none!"
        />
        <Cost tools={found.tools} />
      </div>
      <Tabs
        label={t('What it offers')}
        value={list}
        onValueChange={(next) => onSearchChange({ list: next === 'tools' ? undefined : next })}
        tabs={[
          {
            value: 'tools',
            label: label(t('Tools'), found.tools),
            content: (
              <Definitions
                label={t('Tools')}
                all={found.tools}
                search={wanted}
                query={query}
                empty={<EmptyState icon={Wrench} title={t('It offers no tools')} />}
              />
            ),
          },
          {
            value: 'resources',
            label: label(t('Resources'), found.resources),
            content: (
              <Definitions
                label={t('Resources')}
                all={found.resources}
                search={wanted}
                query={resources}
                empty={<EmptyState icon={FileText} title={t('It offers no resources')} />}
              />
            ),
          },
          {
            value: 'prompts',
            label: label(t('Prompts'), found.prompts),
            content: (
              <Definitions
                label={t('Prompts')}
                all={found.prompts}
                search={wanted}
                query={prompts}
                empty={<EmptyState icon={MessageSquareQuote} title={t('It offers no prompts')} />}
              />
            ),
          },
        ]}
      />
    </div>
  )
}

/** A tool, a resource or a prompt, as it is listed here. */
interface Definition {
  /** Its name, or the address of a resource. */
  name: string
  title: string | undefined
  description: string
  hints: Partial<ToolHints>
  /** The schema of a tool's input; the arguments of a prompt. */
  input: unknown
  /** The schema of a tool's structured result. */
  output: unknown
  /** What a model gets to see of it. */
  bytes: number
}

interface Found {
  tools: Definition[]
  /** Not there while they are read, or when they could not be. */
  resources: Definition[] | undefined
  prompts: Definition[] | undefined
}

function ofTool({ inputSchema, outputSchema, ...tool }: McpTool): Definition {
  return { ...tool, input: inputSchema, output: outputSchema }
}

function ofResource(resource: McpResource): Definition {
  return {
    name: resource.uri,
    title: resource.title ?? resource.name,
    description: resource.description,
    hints: {},
    input: undefined,
    output: undefined,
    bytes: bytesOf(JSON.stringify(resource.raw)),
  }
}

function ofPrompt(prompt: McpPrompt): Definition {
  return {
    name: prompt.name,
    title: prompt.title,
    description: prompt.description,
    hints: {},
    input: prompt.arguments,
    output: undefined,
    bytes: bytesOf(JSON.stringify(prompt.raw)),
  }
}

/** Whether a definition has what was searched for in its name, title or description. */
function matches(definition: Definition, search: string): boolean {
  const wanted = search.trim().toLowerCase()
  return [definition.name, definition.title, definition.description].some(
    (one) => one?.toLowerCase().includes(wanted) === true,
  )
}

/** What all tools together cost in the context of a model, as an estimate. */
function Cost({ tools }: { tools: readonly Definition[] }) {
  if (tools.length === 0) return null
  const tokens = tokensOf(tools.reduce((sum, tool) => sum + tool.bytes, 0))
  return (
    <p className="text-sm text-muted">
      {t('Its tools take about {tokens} of a model’s context (an estimate: four bytes of JSON a token).', {
        tokens: formatTokens(tokens),
      })}
    </p>
  )
}

function Definitions({
  label,
  all,
  search,
  query,
  empty,
}: {
  label: string
  all: readonly Definition[] | undefined
  search: string
  query: { error: unknown; isFetching: boolean; refetch: () => unknown }
  empty: React.ReactNode
}) {
  if (all === undefined) {
    return (
      <Card flush>
        {query.error === null ? (
          <SkeletonLines count={4} rows />
        ) : (
          <ErrorState error={query.error} onRetry={() => void query.refetch()} retrying={query.isFetching} />
        )}
      </Card>
    )
  }
  const shown = all.filter((one) => matches(one, search))
  if (all.length === 0) return <Card>{empty}</Card>
  if (shown.length === 0) {
    return (
      <Card>
        <EmptyState title={t('None of them fits')}>{t('Change the search.')}</EmptyState>
      </Card>
    )
  }
  return (
    <Card flush>
      <ul aria-label={label}>
        {shown.map((one, place) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a server may give two of them the same name.
          <Item key={`${one.name} ${place}`} definition={one} />
        ))}
      </ul>
    </Card>
  )
}

function Item({ definition }: { definition: Definition }) {
  const { name, title, description, hints, bytes } = definition
  const long = description.length > 240 || description.includes('\n')
  const schema = hasContent(definition.input) || definition.output !== undefined
  return (
    <li className="border-b px-pad py-3 last:border-b-0">
      <div className="flex flex-wrap items-baseline gap-x-3 gap-y-1">
        <h2 className="id font-semibold wrap-anywhere">{oneLine(name, 300)}</h2>
        {title !== undefined && title !== name && <span className="text-muted">{oneLine(title, 200)}</span>}
        {HINTS.filter((hint) => hints[hint] === true).map((hint) => (
          <HintBadge key={hint} hint={hint} />
        ))}
        <span
          className="tabular ml-auto text-sm text-faint"
          title={t('An estimate: four bytes of JSON a token')}
        >
          {t('about {tokens}', { tokens: formatTokens(tokensOf(bytes)) })}
        </span>
      </div>
      {description !== '' && !long && (
        <p className="mt-1 max-w-prose wrap-anywhere text-muted">{oneLine(description, 400)}</p>
      )}
      {(long || schema) && (
        <details className="mt-1">
          <summary className="w-full max-w-prose rounded text-muted">
            {long ? oneLine(description, 200) : <span className="text-sm">{t('Input')}</span>}
          </summary>
          <div className="mt-2 flex flex-col gap-3">
            {long && (
              <p className="max-w-prose wrap-anywhere whitespace-pre-wrap">
                {plainText(description, 20_000)}
              </p>
            )}
            {hasContent(definition.input) && (
              <div>
                <p className="mb-1 text-sm text-muted">{t('Input')}</p>
                <JsonView
                  value={definition.input}
                  label={t('Input of {name}', { name: oneLine(name, 100) })}
                  openDepth={3}
                />
              </div>
            )}
            {definition.output !== undefined && (
              <div>
                <p className="mb-1 text-sm text-muted">{t('Structured result')}</p>
                <JsonView
                  value={definition.output}
                  label={t('Structured result of {name}', { name: oneLine(name, 100) })}
                  openDepth={3}
                />
              </div>
            )}
          </div>
        </details>
      )}
    </li>
  )
}

function hasContent(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0
  return isObject(value) && Object.keys(value).length > 0
}

const HINTS = ['readOnly', 'destructive', 'idempotent', 'openWorld'] as const

function HintBadge({ hint }: { hint: keyof ToolHints }) {
  const looks: Record<keyof ToolHints, [text: string, tone: Tone]> = {
    readOnly: [t('reads only'), 'good'],
    destructive: [t('may destroy'), 'warn'],
    idempotent: [t('repeatable'), 'neutral'],
    openWorld: [t('reaches outside'), 'neutral'],
  }
  const [text, tone] = looks[hint]
  return (
    <Badge tone={tone} title={t('Says the server; nobody checked it')}>
      {text}
    </Badge>
  )
}
