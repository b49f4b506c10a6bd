#!/usr/bin/env node
// The fleet's test server. Its arguments say what is wrong with it; fixture.rs has the list.
"use strict";
const net = require("node:net");
const os = require("node:os");
const readline = require("node:readline");

const wrong = new Map(process.argv.slice(2).map((word) => [...word.split("="), ""].slice(0, 2)));
const addresses = Object.values(os.networkInterfaces()).flatMap((all) => all.map(({ address }) => address));
const eaten = [];
let armed = false;

const text = (content) => ({ content: [{ type: "text", text: String(content) }] });
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A TCP connection, or the code of the error that there is none. */
function dial(host, port) {
  return new Promise((done) => {
    const socket = net.connect({ host, port });
    socket.setTimeout(3000, () => socket.destroy(Object.assign(new Error("timeout"), { code: "ETIMEDOUT" })));
    socket.once("connect", () => done({ socket }));
    socket.once("error", (error) => done({ error: error.code }));
  });
}

async function firstLine(socket) {
  for await (const line of readline.createInterface({ input: socket })) return line;
  return "";
}

const tools = {
  echo: async ({ message }) => text(message),
  who: async () => text(JSON.stringify({ pid: process.pid, revision: process.env.FLEET_REVISION ?? "", addresses })),
  wait: async ({ ms }) => (await pause(ms), text("waited")),
  exit: async ({ code }) => process.exit(code),
  eat: async ({ bytes }) => {
    for (let got = 0; got < bytes; got += 8 << 20) {
      eaten.push(Buffer.alloc(8 << 20, 1));
      await pause(5);
    }
    return text("eaten");
  },
  // A socket of its own, past every proxy.
  dial: async ({ host, port }) => {
    const { socket, error } = await dial(host, port);
    socket?.destroy();
    return text(error ?? "connected");
  },
  // As a well-behaved server does it: by the proxy that its environment names.
  tunnel: async ({ host, port }) => {
    const proxy = new URL(process.env.HTTPS_PROXY ?? "http://127.0.0.1:1");
    const { socket, error } = await dial(proxy.hostname, Number(proxy.port));
    if (error) return text(error);
    socket.write(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n\r\n`);
    const line = await firstLine(socket);
    socket.destroy();
    return text(line);
  },
};
if (wrong.has("lose-tool")) delete tools.wait;

const listed = Object.keys(tools).map((name) => ({ name, description: `fleet ${name}`, inputSchema: { type: "object" } }));

async function answer({ id, method, params }) {
  switch (method) {
    case "initialize":
      await pause(Number(wrong.get("slow") ?? 0));
      return send({
        id,
        result: {
          protocolVersion: params.protocolVersion,
          capabilities: { tools: {} },
          serverInfo: { name: "fleet-fixture", version: "1.0.0" },
        },
      });
    case "ping":
      return send({ id, result: {} });
    case "tools/list":
      return send({ id, result: { tools: listed } });
    case "tools/call": {
      if (wrong.has("crash-after") && !armed) {
        armed = true;
        setTimeout(() => process.exit(5), Number(wrong.get("crash-after")));
      }
      const tool = tools[params.name];
      if (!tool) return send({ id, error: { code: -32602, message: "unknown tool" } });
      return send({ id, result: await tool(params.arguments ?? {}) });
    }
  }
  if (id !== undefined) send({ id, error: { code: -32601, message: "method not found" } });
}

if (wrong.has("crash")) {
  process.stderr.write("fatal: this revision cannot start\n");
  process.exit(3);
}
if (wrong.has("eat")) tools.eat({ bytes: Number(wrong.get("eat")) });
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  if (line.trim() !== "") answer(JSON.parse(line));
});
lines.on("close", () => process.exit(0));
