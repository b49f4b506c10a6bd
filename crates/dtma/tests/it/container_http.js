// An MCP server over Streamable HTTP, as MODE says.
const fs = require("node:fs"), http = require("node:http"), net = require("node:net");
const mode = process.env.MODE, modern = mode === "modern";
const sessions = new Set();
const tools = ["echo", "progress", "straight", "proxied", "crash", "close", "note"];
const text = (value) => ({ content: [{ type: "text", text: String(value) }], ...(modern ? { resultType: "complete" } : {}) });

const server = http.createServer((request, response) => {
  if (request.url !== "/mcp") return response.writeHead(404).end("not here");
  if (process.env.TOKEN && request.headers.authorization !== `Bearer ${process.env.TOKEN}`) return response.writeHead(401).end("no");
  if (request.method !== "POST") return response.writeHead(405).end();
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece)).on("end", () => take(JSON.parse(Buffer.concat(pieces)), request, response));
});

function answer(response, id, result, headers = {}) {
  // With line breaks, which are nothing but blanks.
  response.writeHead(200, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ jsonrpc: "2.0", id, result }, null, 2));
}

function refuse(response, id, status, code) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", id, error: { code, message: "no" } }));
}

function take({ id, method, params }, request, response) {
  if (mode === "ends-at-discover" && method === "server/discover") process.exit(1);
  const info = { name: "over-http", version: "1" };
  if (modern && method === "server/discover")
    return answer(response, id, { resultType: "complete", supportedVersions: ["2026-07-28"], capabilities: { tools: {} }, serverInfo: info, _meta: { "io.modelcontextprotocol/serverInfo": info } });
  if (modern && request.headers["mcp-method"] !== method) return refuse(response, id, 400, -32600);
  if (!modern && method === "initialize") {
    const session = String(Math.random());
    sessions.add(session);
    return answer(response, id, { protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo: info }, { "mcp-session-id": session });
  }
  const session = request.headers["mcp-session-id"];
  if (!modern && session === undefined) return response.writeHead(400).end("no session");
  if (!modern && !sessions.has(session)) return response.writeHead(404).end("no such session");
  if (id === undefined) return response.writeHead(202).end();
  if (method === "ping") return answer(response, id, {});
  if (method === "tools/list")
    return answer(response, id, { ...(modern ? { resultType: "complete" } : {}), tools: tools.map((name) => ({ name, inputSchema: { type: "object" } })) });
  if (method !== "tools/call") return refuse(response, id, modern ? 404 : 200, -32601);
  const given = params.arguments ?? {};
  switch (params.name) {
    case "echo":
      return answer(response, id, text(given.text));
    case "progress": {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const send = (message) => response.write(`data: ${JSON.stringify({ jsonrpc: "2.0", ...message })}\n\n`);
      send({ method: "notifications/progress", params: { progressToken: params._meta.progressToken, progress: 1 } });
      send({ id, result: text("done") });
      return response.end();
    }
    case "straight": {
      const socket = net.connect({ ...given, timeout: 3000 }, () => { socket.destroy(); answer(response, id, text("connected")); });
      return socket.on("error", (error) => answer(response, id, text(error.code)));
    }
    case "proxied":
      return http.get({ ...given, path: "/" }, (got) => { got.resume(); answer(response, id, text(got.statusCode)); })
        .on("error", (error) => answer(response, id, text(error.code)));
    case "note":
      // Adds to a file, and gives all of it.
      fs.appendFileSync(given.path, given.text);
      return answer(response, id, text(fs.readFileSync(given.path, "utf8")));
    case "crash":
      return process.exit(7);
    case "status":
      return response.writeHead(given.status).end("as told");
    case "forget":
      answer(response, id, text("forgotten"));
      return sessions.clear();
    case "hang":
      answer(response, id, text("hangs"));
      return setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), 50);
    case "close":
      answer(response, id, text("closing"), { connection: "close" });
      setTimeout(() => { server.close(); server.closeAllConnections(); }, 50);
      return setInterval(() => {}, 1000);
  }
  return refuse(response, id, 200, -32602);
}

const listen = () => server.listen(8123, "127.0.0.1", () => console.log("listening on 8123"));
if (mode === "slow") setTimeout(listen, 1500);
else if (mode === "deaf") setInterval(() => {}, 1000);
else listen();
