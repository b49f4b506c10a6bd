/** Which tools a toolset has, as they are chosen: by server, `undefined` where all are, also those it adds later. */
import type { ToolOverride, ToolsetMember } from '@/api/generated/types'
import { bytesOf, type McpTool } from '@/lib/mcp/things'
import { t } from '@/lib/t'

/** Chosen servers, and of each the chosen tools. */
export type Selection = Readonly<Record<string, readonly string[] | undefined>>

/** What the toolset says of tools instead of their servers: by server, then by the tool's name there. */
export type Overrides = Readonly<Record<string, Readonly<Record<string, ToolOverride>>>>

/** What a toolset's members say of tools. */
export function overridesOf(members: readonly ToolsetMember[]): Overrides {
  return Object.fromEntries(members.map((member) => [member.server, member.overrides ?? {}]))
}

/** With something said of a tool, or with nothing any more. */
export function withOverride(
  overrides: Overrides,
  server: string,
  tool: string,
  said: ToolOverride,
): Overrides {
  const { [tool]: _, ...rest } = overrides[server] ?? {}
  const kept: ToolOverride = {}
  if (said.name) kept.name = said.name
  if (said.description) kept.description = said.description
  return { ...overrides, [server]: Object.keys(kept).length === 0 ? rest : { ...rest, [tool]: kept } }
}

/** What is wrong with a tool's new name, by the server's own rules (crates/control/src/app/toolsets.rs). */
export function nameIssue(overrides: Overrides, server: string, tool: string): string | undefined {
  const name = overrides[server]?.[tool]?.name
  if (!name) return undefined
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) return t('Use at most 64 of A–Z, a–z, 0–9, _ and -')
  if (name.includes('__')) return t('Two underscores stand between a server and its tool')
  const same = Object.entries(overrides).some(([other, said]) =>
    Object.entries(said).some(
      ([one, { name: taken }]) => taken === name && (other !== server || one !== tool),
    ),
  )
  return same ? t('Another tool has this name') : undefined
}

/** A toolset's members as a selection. */
export function selectionOf(members: readonly ToolsetMember[]): Selection {
  return Object.fromEntries(members.map((member) => [member.server, member.tools ?? undefined]))
}

/** A selection as the API takes it, in the order of the servers' names. */
export function membersOf(selection: Selection, overrides: Overrides = {}): ToolsetMember[] {
  return Object.entries(selection)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([server, tools]) => {
      const member: ToolsetMember = { server }
      if (tools !== undefined) member.tools = [...tools].sort()
      const said = Object.entries(overrides[server] ?? {}).filter(
        ([tool]) => tools === undefined || tools.includes(tool),
      )
      if (said.length > 0) member.overrides = Object.fromEntries(said)
      return member
    })
}

/** Whether a server is in it: whole, in part, or not. */
export function stateOf(selection: Selection, server: string): 'none' | 'all' | 'some' {
  if (!Object.hasOwn(selection, server)) return 'none'
  return selection[server] === undefined ? 'all' : 'some'
}

/** With a server whole, or without it. */
export function withServer(selection: Selection, server: string, state: 'none' | 'all'): Selection {
  const { [server]: _, ...rest } = selection
  return state === 'all' ? { ...rest, [server]: undefined } : rest
}

/** With only these tools of a server; without it when there are none. */
export function withTools(selection: Selection, server: string, tools: readonly string[]): Selection {
  return tools.length === 0 ? withServer(selection, server, 'none') : { ...selection, [server]: tools }
}

/**
 * How many tools are chosen, where servers say only how many they have; `undefined` when one that is chosen whole does not
 * say it.
 */
export function toolCount(
  selection: Selection,
  offered: ReadonlyMap<string, number | undefined>,
): number | undefined {
  let count = 0
  for (const [server, chosen] of Object.entries(selection)) {
    const tools = chosen?.length ?? offered.get(server)
    if (tools === undefined) return undefined
    count += tools
  }
  return count
}

/** What the chosen tools of a server cost in context, in bytes. In a toolset each name begins with the server's. */
export function bytesOfTools(
  server: string,
  tools: readonly McpTool[],
  chosen: readonly string[] | undefined,
  said: Readonly<Record<string, ToolOverride>> = {},
): number {
  const prefix = bytesOf(`${server}__`)
  const cost = (tool: McpTool) => {
    const { name, description } = said[tool.name] ?? {}
    return (
      tool.bytes +
      (name ? bytesOf(name) - bytesOf(tool.name) : prefix) +
      (description ? bytesOf(description) - bytesOf(tool.description) : 0)
    )
  }
  return tools
    .filter((tool) => chosen === undefined || chosen.includes(tool.name))
    .reduce((sum, tool) => sum + cost(tool), 0)
}

/**
 * The servers to choose from: those that were chosen at first, then those that could be asked, then by name. Not by what
 * is chosen now, so that nothing jumps under the pointer.
 */
export function inOrder<Server extends { name: string }>(
  servers: readonly Server[],
  chosen: ReadonlySet<string>,
  ready: ReadonlySet<string>,
): Server[] {
  const place = ({ name }: Server) => (chosen.has(name) ? 0 : ready.has(name) ? 1 : 2)
  return servers.toSorted((one, other) => place(one) - place(other) || one.name.localeCompare(other.name))
}

/** How far a search through lists that come one by one is: those that have come, and those to ask for now. */
export function searchTurn<Item>(
  items: readonly Item[],
  hasCome: (item: Item) => boolean,
  atOnce: number,
): { come: Item[]; next: Item[] } {
  const come: Item[] = []
  const next: Item[] = []
  for (const item of items) {
    if (hasCome(item)) come.push(item)
    else if (next.length < atOnce) next.push(item)
  }
  return { come, next }
}
