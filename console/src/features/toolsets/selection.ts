/** Which tools a toolset has, as they are chosen: by server, `undefined` where all are, also those it adds later. */
import type { ToolsetMember } from '@/api/generated/types'
import { bytesOf, type McpTool } from '@/lib/mcp/things'

/** Chosen servers, and of each the chosen tools. */
export type Selection = Readonly<Record<string, readonly string[] | undefined>>

/** A toolset's members as a selection. */
export function selectionOf(members: readonly ToolsetMember[]): Selection {
  return Object.fromEntries(members.map((member) => [member.server, member.tools ?? undefined]))
}

/** A selection as the API takes it, in the order of the servers' names. */
export function membersOf(selection: Selection): ToolsetMember[] {
  return Object.entries(selection)
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([server, tools]) => (tools === undefined ? { server } : { server, tools: [...tools].sort() }))
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

/** What the chosen tools of a server cost in context, in bytes. In a toolset each name begins with the server's. */
export function bytesOfTools(
  server: string,
  tools: readonly McpTool[],
  chosen: readonly string[] | undefined,
): number {
  const prefix = bytesOf(`${server}__`)
  return tools
    .filter((tool) => chosen === undefined || chosen.includes(tool.name))
    .reduce((sum, tool) => sum + tool.bytes + prefix, 0)
}
