import { ChevronRight, Pencil } from 'lucide-react'
import { useId, useState } from 'react'
import type { Server } from '@/api/generated/types'
import { PhaseStatus } from '@/features/servers/public/phase'
import { cx } from '@/lib/cx'
import { formatTokens } from '@/lib/format'
import { type McpTool, tokensOf } from '@/lib/mcp/things'
import { plural, t } from '@/lib/t'
import { oneLine, plainText } from '@/lib/text'
import { IconButton } from '@/ui/button'
import { ErrorState } from '@/ui/error-state'
import { Textarea, TextInput } from '@/ui/inputs'
import { SkeletonLines } from '@/ui/skeleton'
import { RadioGroup } from '@/ui/toggles'
import {
  bytesOfTools,
  nameIssue,
  type Overrides,
  type Selection,
  stateOf,
  withOverride,
  withServer,
  withTools,
} from './selection'

/** What is known of a server's tools. */
export interface ToolsOfServer {
  tools: McpTool[] | undefined
  error: unknown
  /** Whether it answers now. */
  answers: boolean
  /** How many it has, as it last told; anybody may know that. */
  count: number | undefined
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
  overrides,
  onOverride,
  unseen,
  disabledReason,
}: {
  server: Server
  known: ToolsOfServer | undefined
  selection: Selection
  search: string
  open: boolean
  onOpenChange: (open: boolean) => void
  onChange: (selection: Selection) => void
  overrides: Overrides
  onOverride: (overrides: Overrides) => void
  /** Why the person may not see tools. */
  unseen: string | undefined
  disabledReason: string | undefined
}) {
  const id = useId()
  const { name } = server
  const state = stateOf(selection, name)
  const chosen = selection[name]
  const tools = known?.tools
  const off = disabledReason !== undefined
  const cost =
    tools === undefined || state === 'none'
      ? undefined
      : tokensOf(bytesOfTools(name, tools, chosen, overrides[name]))
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
          {summary(state, chosen, tools?.length ?? known?.count)}
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
            <Unknown known={known} chosen={chosen} unseen={unseen} />
          ) : (
            <Tools
              server={name}
              tools={tools}
              selection={selection}
              search={search}
              onChange={onChange}
              overrides={overrides}
              onOverride={onOverride}
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
  unseen,
}: {
  known: ToolsOfServer | undefined
  chosen: readonly string[] | undefined
  unseen: string | undefined
}) {
  if (unseen !== undefined || (known !== undefined && !known.answers)) {
    return (
      <p className="text-sm wrap-anywhere text-muted">
        {unseen === undefined
          ? t('Its tools can be seen once it answers.')
          : t('You may not see its tools. {why}.', { why: unseen })}
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
  overrides,
  onOverride,
  disabledReason,
}: {
  server: string
  tools: McpTool[]
  selection: Selection
  search: string
  onChange: (selection: Selection) => void
  overrides: Overrides
  onOverride: (overrides: Overrides) => void
  disabledReason: string | undefined
}) {
  const id = useId()
  const [editing, setEditing] = useState<string>()
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
        {fitting.map((tool) => {
          const said = overrides[server]?.[tool.name] ?? {}
          const issue = nameIssue(overrides, server, tool.name)
          return (
            <li key={tool.name} className="rounded-md px-1 py-1 hover:bg-hover">
              <div className="flex items-start gap-2.5">
                <input
                  type="checkbox"
                  id={`${id}-${tool.name}`}
                  className="checkbox mt-0.5"
                  checked={isOn(tool.name)}
                  disabled={off}
                  onChange={(event) => set(tool.name, event.target.checked)}
                />
                <label htmlFor={`${id}-${tool.name}`} className="min-w-0 flex-1">
                  <span className="id block wrap-anywhere">
                    {said.name ? (
                      <>
                        {said.name}{' '}
                        <span className="text-muted">
                          {t('(here {name})', { name: oneLine(tool.name, 120) })}
                        </span>
                      </>
                    ) : (
                      oneLine(tool.name, 120)
                    )}
                  </span>
                  <span className="line-clamp-2 text-sm wrap-anywhere text-muted">
                    {oneLine(said.description ?? tool.description, 240)}
                  </span>
                </label>
                <span className="tabular text-sm whitespace-nowrap text-muted">
                  {formatTokens(tokensOf(bytesOfTools(server, [tool], undefined, overrides[server])))}
                </span>
                {isOn(tool.name) && (
                  <IconButton
                    icon={Pencil}
                    size="small"
                    className="text-muted!"
                    label={t('Name and describe {name}', { name: oneLine(tool.name, 120) })}
                    aria-expanded={editing === tool.name}
                    disabledReason={disabledReason}
                    onClick={() => setEditing(editing === tool.name ? undefined : tool.name)}
                  />
                )}
              </div>
              {isOn(tool.name) && (editing === tool.name || issue !== undefined) && (
                <div className="mt-1 mb-2 grid gap-3 pl-6 sm:grid-cols-[minmax(0,1fr)_minmax(0,2fr)]">
                  <TextInput
                    id={`${id}-name-${tool.name}`}
                    label={t('Name in the toolset')}
                    placeholder={`${server}__${oneLine(tool.name, 120)}`}
                    value={said.name ?? ''}
                    onValueChange={(name) =>
                      onOverride(withOverride(overrides, server, tool.name, { ...said, name }))
                    }
                    error={issue}
                    autoComplete="off"
                    required={false}
                    mono
                  />
                  <Textarea
                    id={`${id}-description-${tool.name}`}
                    label={t('Description in the toolset')}
                    placeholder={plainText(tool.description, 1000)}
                    value={said.description ?? ''}
                    onValueChange={(description) =>
                      onOverride(withOverride(overrides, server, tool.name, { ...said, description }))
                    }
                    required={false}
                    maxLength={4000}
                    rows={3}
                  />
                </div>
              )}
            </li>
          )
        })}
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
  all: number | undefined,
): string {
  if (state === 'all') {
    return all === undefined ? t('all tools') : plural(all, 'all, {count} now', 'all, {count} now')
  }
  if (state === 'some') {
    return all === undefined
      ? plural(chosen?.length ?? 0, '{count} tool', '{count} tools')
      : t('{count} of {all}', { count: chosen?.length ?? 0, all })
  }
  return all === undefined ? '' : plural(all, '{count} tool', '{count} tools')
}
