#!/usr/bin/env node
// A server that has the fault that MODE names.
const mode = process.env.MODE ?? "", fs = require("node:fs"), kept = [];
const send = (message) => fs.writeSync(1, JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const text = (value) => ({ content: [{ type: "text", text: String(value) }] });
let first;

function take({ id, method, params }) {
  first ??= method;
  if (mode === "initialize-only" && first !== "initialize") {
    console.error("Error: expected initialize request");
    process.exit(1);
  }
  if (method === "initialize")
    return send({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "faulty", version: "1" } } });
  if (method === "ping") return send({ id, result: {} });
  if (method === "tools/list")
    return send({ id, result: { tools: ["echo", "block", "eat"].map((name) => ({ name, inputSchema: { type: "object" } })) } });
  if (method !== "tools/call") return id === undefined ? undefined : send({ id, error: { code: -32601, message: "no" } });
  const given = params.arguments ?? {};
  if (params.name === "block") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, given.ms);
  if (params.name === "eat") for (;;) kept.push(Buffer.alloc(16 << 20, 1));
  send({ id, result: text(given.text ?? params.name) });
}

console.error(`started as ${mode}`);
if (mode === "missing-file") require("./made-by-a-script.json");
let rest = "";
process.stdin.on("data", (chunk) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  const messages = lines.filter((line) => line.trim() !== "").map((line) => JSON.parse(line));
  // What servers of the official Python SDK 1.x do of a cancellation that comes together with its call.
  const asked = messages.filter((message) => message.id !== undefined).map((message) => message.id);
  if (messages.some((it) => it.method === "notifications/cancelled" && asked.includes(it.params.requestId))) process.exit(9);
  messages.forEach(take);
});
process.stdin.on("end", () => process.exit(0));
