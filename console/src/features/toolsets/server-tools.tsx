import { ChevronRight } from 'lucide-react'
import { useId } from 'react'
import type { Server } from '@/api/generated/types'
import { PhaseStatus } from '@/features/servers/public/phase'
import { cx } from '@/lib/cx'
import { formatTokens } from '@/lib/format'
import { type McpTool, tokensOf } from '@/lib/mcp/things'
import { plural, t } from '@/lib/t'
import { oneLine } from '@/lib/text'
import { ErrorState } from '@/ui/error-state'
import { SkeletonLines } from '@/ui/skeleton'
import { RadioGroup } from '@/ui/toggles'
import { bytesOfTools, type Selection, stateOf, withServer, withTools } from './selection'

/** What is known of a server's tools. */
export interface ToolsOfServer {
  tools: McpTool[] | undefined
  error: unknown
  /** Whether it answers now. */
  answers: boolean
  retry: () => void
}

/** A server in the chooser: in the toolset or not, and which of its tools. */
export function ServerTools({
  server,
  known,
  selection,
  search,
  open,
  onOpenChange,
  onChange,
  disabledReason,
}: {
  server: Server
  known: ToolsOfServer | undefined
  selection: Selection
  search: string
  open: boolean
  onOpenChange: (open: boolean) => void
  onChange: (selection: Selection) => void
  disabledReason: string | undefined
}) {
  const id = useId()
  const { name } = server
  const state = stateOf(selection, name)
  const chosen = selection[name]
  const tools = known?.tools
  const off = disabledReason !== undefined
  const cost =
    tools === undefined || state === 'none' ? undefined : tokensOf(bytesOfTools(name, tools, chosen))
  const toggle = () => {
    onChange(withServer(selection, name, state === 'none' ? 'all' : 'none'))
    if (state === 'none' && !open) onOpenChange(true)
  }
  return (
    <li className="border-b last:border-b-0">
      <div className="flex items-center gap-3 px-pad py-2">
        <input
          type="checkbox"
          id={id}
          className="checkbox"
          checked={state !== 'none'}
          disabled={off}
          ref={(input) => {
            if (input !== null) input.indeterminate = state === 'some'
          }}
          aria-describedby={`${id}-what`}
          onChange={toggle}
        />
        <label htmlFor={id} className="id min-w-0 truncate font-medium">
          {name}
        </label>
        <span id={`${id}-what`} className="min-w-0 flex-1 truncate text-sm text-muted">
          {summary(state, chosen, tools)}
        </span>
        {cost !== undefined && (
          <span className="tabular text-sm whitespace-nowrap text-muted max-sm:hidden">
            {t('about {tokens}', { tokens: formatTokens(cost) })}
          </span>
        )}
        {!known?.answers && server.phase !== 'ready' && (
          <PhaseStatus phase={server.phase} className="text-sm" />
        )}
        <button
          type="button"
          aria-expanded={open}
          aria-controls={`${id}-tools`}
          aria-label={t('Tools of {name}', { name })}
          onClick={() => onOpenChange(!open)}
          className="flex size-control-small items-center justify-center rounded-md text-muted hover:bg-hover hover:text-text"
        >
          <ChevronRight
            aria-hidden="true"
            className={cx('size-4 transition-transform', open && 'rotate-90')}
          />
        </button>
      </div>
      {open && (
        <div id={`${id}-tools`} className="px-pad pb-3 pl-10">
          {tools === undefined ? (
            <Unknown known={known} chosen={chosen} />
          ) : (
            <Tools
              server={name}
              tools={tools}
              selection={selection}
              search={search}
              onChange={onChange}
              disabledReason={disabledReason}
            />
          )}
        </div>
      )}
    </li>
  )
}

function Unknown({
  known,
  chosen,
}: {
  known: ToolsOfServer | undefined
  chosen: readonly string[] | undefined
}) {
  if (known !== undefined && !known.answers) {
    return (
      <p className="text-sm text-muted">
        {t('Its tools can be seen once it answers.')}
        {chosen !== undefined && ` ${t('Chosen: {tools}', { tools: oneLine(chosen.join(', '), 400) })}`}
      </p>
    )
  }
  if (known?.error !== undefined)
    return <ErrorState error={known.error} onRetry={known.retry} className="p-0" />
  return <SkeletonLines count={4} />
}

function Tools({
  server,
  tools,
  selection,
  search,
  onChange,
  disabledReason,
}: {
  server: string
  tools: McpTool[]
  selection: Selection
  search: string
  onChange: (selection: Selection) => void
  disabledReason: string | undefined
}) {
  const id = useId()
  const state = stateOf(selection, server)
  const chosen = selection[server]
  const off = disabledReason !== undefined
  const names = tools.map((tool) => tool.name)
  const isOn = (name: string) => state === 'all' || (chosen?.includes(name) ?? false)
  const gone = (chosen ?? []).filter((name) => !names.includes(name))
  const fitting =
    search === '' || server.includes(search)
      ? tools
      : tools.filter((tool) => tool.name.toLowerCase().includes(search))
  const set = (name: string, on: boolean) => {
    const before = state === 'all' ? names : (chosen ?? [])
    onChange(withTools(selection, server, on ? [...before, name] : before.filter((one) => one !== name)))
  }
  return (
    <div className="flex flex-col gap-3">
      {state !== 'none' && (
        <RadioGroup
          label={t('Which')}
          inline
          value={state}
          onValueChange={(next) =>
            onChange(
              next === 'all' ? withServer(selection, server, 'all') : withTools(selection, server, names),
            )
          }
          options={[
            {
              value: 'all',
              label: t('All, also those it adds later'),
              ...(off ? { disabledReason } : {}),
            },
            { value: 'some', label: t('Only the chosen ones'), ...(off ? { disabledReason } : {}) },
          ]}
        />
      )}
      <ul className="flex flex-col">
        {fitting.map((tool) => (
          <li key={tool.name} className="flex items-start gap-2.5 rounded-md px-1 py-1 hover:bg-hover">
            <input
              type="checkbox"
              id={`${id}-${tool.name}`}
              className="checkbox mt-0.5"
              checked={isOn(tool.name)}
              disabled={off}
              onChange={(event) => set(tool.name, event.target.checked)}
            />
            <label htmlFor={`${id}-${tool.name}`} className="min-w-0 flex-1">
              <span className="id block truncate">{oneLine(tool.name, 120)}</span>
              <span className="block truncate text-sm text-muted">{oneLine(tool.description, 240)}</span>
            </label>
            <span className="tabular text-sm whitespace-nowrap text-muted">
              {formatTokens(tokensOf(bytesOfTools(server, [tool], undefined)))}
            </span>
          </li>
        ))}
        {gone.map((name) => (
          <li key={name} className="flex items-start gap-2.5 px-1 py-1">
            <input
              type="checkbox"
              id={`${id}-gone-${name}`}
              className="checkbox mt-0.5"
              checked
              disabled={off}
              onChange={() => set(name, false)}
            />
            <label htmlFor={`${id}-gone-${name}`} className="min-w-0 flex-1">
              <span className="id">{oneLine(name, 120)}</span>{' '}
              <span className="text-sm text-muted">{t('the server does not offer it any more')}</span>
            </label>
          </li>
        ))}
      </ul>
      {tools.length === 0 && <p className="text-sm text-muted">{t('It has no tools.')}</p>}
    </div>
  )
}

function summary(
  state: 'none' | 'all' | 'some',
  chosen: readonly string[] | undefined,
  tools: McpTool[] | undefined,
): string {
  if (state === 'all') {
    return tools === undefined ? t('all tools') : plural(tools.length, 'all, {count} now', 'all, {count} now')
  }
  if (state === 'some') {
    return tools === undefined
      ? plural(chosen?.length ?? 0, '{count} tool', '{count} tools')
      : t('{count} of {all}', { count: chosen?.length ?? 0, all: tools.length })
  }
  return tools === undefined ? '' : plural(tools.length, '{count} tool', '{count} tools')
}
