// Many MCP clients that open a session, and a stream where that is offered, and never say goodbye.
// Arguments: host, port, path, API key, how many. Prints how many sessions it has, then waits to be killed.
"use strict";
const http = require("node:http");
const [host, port, path, key, count] = process.argv.slice(2);

const ask = (method, headers, body) =>
  new Promise((done, failed) => {
    const options = { host, port, path, method, agent: new http.Agent({ keepAlive: true }), headers: { ...headers, authorization: `Bearer ${key}` } };
    const request = http.request(options, done);
    request.once("error", failed);
    request.end(body);
  });

async function connect() {
  const body = JSON.stringify({
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "vanishing", version: "1" } },
  });
  const json = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  const answer = await ask("POST", json, body);
  answer.resume();
  const session = answer.headers["mcp-session-id"];
  if (answer.statusCode !== 200) throw new Error(`initialize answered ${answer.statusCode}`);
  const stream = await ask("GET", { accept: "text/event-stream", ...(session && { "mcp-session-id": session }) });
  stream.on("error", () => {});
  stream.resume();
  return { session, streams: stream.statusCode === 200 };
}

(async () => {
  const clients = [];
  for (let at = 0; at < Number(count); at += 25) {
    clients.push(...(await Promise.all(Array.from({ length: Math.min(25, count - at) }, connect))));
  }
  const sessions = clients.filter(({ session }) => session).length;
  console.log(JSON.stringify({ clients: clients.length, sessions, streams: clients.filter(({ streams }) => streams).length }));
  setInterval(() => {}, 1000);
})();
