// The official TypeScript SDK 2.x, in the era asked for; prints what it saw as JSON.
// usage: node typescript-2.mjs URL KEY legacy|modern TOOL ARGUMENTS
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, key, era, tool, args] = process.argv.slice(2);
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${key}` } },
});
const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
const client = new Client({ name: "toolyard-test", version: "1" }, { versionNegotiation: { mode } });
await client.connect(transport);
const tools = (await client.listTools()).tools.map((t) => t.name);
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
await client.close();
console.log(JSON.stringify({ tools, content: result.content }));
