#!/usr/bin/env node
// The fixture server. See fixture.rs for what its arguments mean.
"use strict";
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const readline = require("node:readline");

const [mode = "ok", value = "0"] = process.argv.slice(2);
const modern = mode === "modern";
const kept = [];
let broken = 0;
let firstMethod;

function send(message) {
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
}

function text(content) {
  const result = { content: [{ type: "text", text: String(content) }] };
  return modern ? { resultType: "complete", ...result } : result;
}

const tools = {
  echo: async ({ message }) => text(message),
  sleep: async ({ ms }) => {
    await new Promise((done) => setTimeout(done, ms));
    return text("slept");
  },
  // Holds the whole process up.
  block: async ({ ms }) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    return text("blocked");
  },
  // Answers, and holds the process up for ever from then on.
  hang: async () => {
    setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), 50);
    return text("hangs");
  },
  first_method: async () => text(firstMethod),
  // How many lines were no JSON.
  broken_lines: async () => text(broken),
  env: async ({ name }) => text(process.env[name] ?? "(unset)"),
  whoami: async () => text(JSON.stringify({ uid: process.getuid(), gid: process.getgid(), pid: process.pid, cwd: process.cwd() })),
  crash: async ({ code = 1 }) => process.exit(code),
  big: async ({ bytes }) => text("x".repeat(bytes)),
  huge: async ({ bytes }) => {
    const chunk = "x".repeat(1 << 20);
    process.stdout.write('{"jsonrpc":"2.0","id":999999,"result":"');
    for (let sent = 0; sent < bytes; sent += chunk.length) {
      if (!process.stdout.write(chunk)) await new Promise((done) => process.stdout.once("drain", done));
    }
    process.stdout.write('"}\n');
    return text("sent");
  },
  // A grandchild in a session of its own, whose parent is gone: what a daemon does.
  fork: async () => {
    const script = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!";
    const shell = spawn("sh", ["-c", script], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
    let out = "";
    for await (const chunk of shell.stdout) out += chunk;
    return text(out.trim());
  },
  eat_memory: async ({ bytes }) => {
    for (let eaten = 0; eaten < bytes; eaten += 16 << 20) {
      kept.push(Buffer.alloc(16 << 20, 1));
      await new Promise((done) => setImmediate(done));
    }
    return text("eaten");
  },
  many_processes: async ({ count }) => {
    let failed = 0;
    for (let started = 0; started < count; started++) {
      try {
        const child = spawn("sleep", ["1000"], { stdio: "ignore" });
        child.on("error", () => failed++);
        kept.push(child);
      } catch {
        failed++;
      }
    }
    await new Promise((done) => setTimeout(done, 200));
    return text(failed);
  },
  // Runs a program and tells what it wrote and how it ended.
  run: async ({ program, arguments: given = [], input = "" }) => {
    const child = spawn(program, given, { stdio: ["pipe", "pipe", "pipe"] });
    const ended = new Promise((done, failed) => {
      child.on("error", failed);
      child.on("close", (code, signal) => done(code ?? signal));
    });
    let out = "";
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => (out += chunk));
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    const code = await ended;
    return text(JSON.stringify({ code, out }));
  },
  stderr_flood: async ({ lines }) => {
    for (let line = 0; line < lines; line++) {
      if (!process.stderr.write(`flood ${line} ${"y".repeat(200)}\n`)) {
        await new Promise((done) => process.stderr.once("drain", done));
      }
    }
    return text("flooded");
  },
  say: async ({ message }) => {
    await new Promise((done) => process.stderr.write(message + "\n", done));
    return text("said");
  },
  // Writes lines that are no protocol to standard output once `path` is there, which it removes then.
  babble_at: async ({ path, lines }) => {
    const timer = setInterval(() => {
      if (!fs.existsSync(path)) return;
      clearInterval(timer);
      for (let line = 0; line < lines; line++) process.stdout.write(`babble ${line}\n`);
      fs.rmSync(path);
    }, 20);
    return text("waits");
  },
  read_file: async ({ path }) => text(fs.readFileSync(path, "utf8")),
  list_dir: async ({ path }) => text(fs.readdirSync(path).join("\n")),
  write_file: async ({ path, content }) => {
    fs.writeFileSync(path, content);
    return text("written");
  },
};

const listed = Object.keys(tools).map((name) => ({ name, description: `fixture ${name}`, inputSchema: { type: "object" } }));
const info = { name: "toolyard-fixture", version: "1.0.0" };

async function answer({ id, method, params }) {
  firstMethod ??= method;
  if (mode === "initialize-only" && firstMethod !== "initialize") {
    process.stderr.write("Error: expected initialize request\n");
    process.exit(1);
  }
  if (mode === "wedged-by-discover" && firstMethod !== "initialize") return;
  switch (method) {
    case "server/discover":
      if (!modern) break;
      return send({
        id,
        result: { resultType: "complete", supportedVersions: ["2026-07-28"], capabilities: { tools: {} }, ttlMs: 0, cacheScope: "private",
          _meta: { "io.modelcontextprotocol/serverInfo": info } },
      });
    case "initialize":
      if (modern) break;
      return send({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: info } });
    case "ping":
      return send({ id, result: {} });
    case "notifications/cancelled":
      process.stderr.write(`given up: ${params.reason}\n`);
      return;
    case "tools/list":
      return send({ id, result: modern ? { resultType: "complete", tools: listed, ttlMs: 0, cacheScope: "private" } : { tools: listed } });
    case "tools/call": {
      const tool = tools[params.name];
      if (!tool) return send({ id, error: { code: -32602, message: "unknown tool" } });
      try {
        return send({ id, result: await tool(params.arguments ?? {}) });
      } catch (error) {
        return send({ id, result: { ...text(error.message), isError: true } });
      }
    }
  }
  if (id !== undefined) send({ id, error: { code: -32601, message: "method not found" } });
}

function serve() {
  const started = Date.now();
  if (mode === "noisy") console.log("a banner on standard output");
  if (mode === "fragile") {
    process.stdin.on("data", (chunk) => {
      const messages = String(chunk).split("\n").filter((line) => line.trim() !== "").map((line) => JSON.parse(line));
      const asked = messages.filter((message) => message.id !== undefined).map((message) => message.id);
      if (messages.some((it) => it.method === "notifications/cancelled" && asked.includes(it.params.requestId))) process.exit(9);
    });
  }
  const lines = readline.createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    if (line.trim() === "" && mode !== "strict") return;
    if (mode === "never-answer") return;
    if (mode === "deaf-after" && Date.now() - started > Number(value)) return;
    if (mode === "indiscreet") return console.log("my key is " + process.env.API_KEY);
    if (mode === "garbage") return console.log("this is not JSON-RPC: " + line.length);
    if (mode === "noisy") console.log("debug: got a line");
    let message;
    try {
      message = JSON.parse(line);
    } catch (error) {
      if (mode !== "lenient") throw error;
      broken++;
      return send({ id: null, error: { code: -32700, message: "parse error" } });
    }
    answer(message);
  });
  if (mode === "stubborn") {
    process.on("SIGTERM", () => {});
    setInterval(() => {}, 1000);
  } else {
    lines.on("close", () => process.exit(0));
  }
}

process.stderr.write(`fixture ${mode} starts\n`);
if (mode === "exit-at-once") {
  process.stderr.write("fatal: nothing to do\n");
  process.exitCode = Number(value);
} else if (mode === "long-last-words") {
  fs.writeSync(2, ("x".repeat(99) + "\n").repeat(600) + "the very last word");
  process.exitCode = 4;
} else if (mode === "slow-start") {
  setTimeout(serve, Number(value));
} else {
  serve();
}
