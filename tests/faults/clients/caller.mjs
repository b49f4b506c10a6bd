// Calls a tool over and over with the official TypeScript SDK (1.x or 2.x), one call after the other, whatever fails.
//
// usage: node caller.mjs 1|2 URL KEY legacy|modern TOOL ARGUMENTS CALLS
//
// Prints a line of JSON for each call, in milliseconds since 1970: {"began": .., "ended": .., "error": null or text}.
// A session is kept after a failed call; two in a row, and there is a new one.
const [version, url, key, era, tool, args, calls] = process.argv.slice(2);
const patience = { timeout: 20_000 };
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
const info = { name: "toolyard-test", version: "1" };

const connect = async () => {
  if (version === "1") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const client = new Client(info);
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }), patience);
    return { call: (params) => client.callTool(params, undefined, patience), close: () => client.close() };
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const mode = era === "modern" ? { pin: "2026-07-28" } : "legacy";
  const client = new Client(info, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }), patience);
  return { call: (params) => client.callTool(params, patience), close: () => client.close() };
};

let open;
let inARow = 0;
for (let left = Number(calls); left > 0; left -= 1) {
  const began = Date.now();
  let error = null;
  try {
    open ??= await connect();
    const result = await open.call({ name: tool, arguments: JSON.parse(args) });
    if (result.isError) error = JSON.stringify(result.content);
  } catch (failure) {
    error = `${failure.name}: ${failure.message} ${failure.cause?.message ?? ""}`.trim();
  }
  console.log(JSON.stringify({ began, ended: Date.now(), error }));
  inARow = error === null ? 0 : inARow + 1;
  if (inARow === 2 && open) {
    await open.close().catch(() => {});
    open = undefined;
  }
}
await open?.close().catch(() => {});
process.exit(0);
