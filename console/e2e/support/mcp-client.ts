/** A client that somebody else wrote: the official TypeScript SDK, as an agent would use it. */
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

/** Connects, lists the tools, calls the first whose name fits, and leaves. */
export async function callTool(
  url: string,
  key: string,
  wanted: RegExp,
  args: Record<string, unknown>,
): Promise<{ tools: string[]; text: string }> {
  const client = new Client({ name: 'e2e', version: '1.0.0' })
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { authorization: `Bearer ${key}` } },
  })
  await client.connect(transport)
  try {
    const tools = await client.listTools()
    const names = tools.tools.map((tool) => tool.name)
    const name = names.find((it) => wanted.test(it))
    if (name === undefined) throw new Error(`no tool like ${wanted} among ${names.join(', ')}`)
    const result = await client.callTool({ name, arguments: args })
    return { tools: names, text: JSON.stringify(result.content) }
  } finally {
    await client.close()
  }
}
