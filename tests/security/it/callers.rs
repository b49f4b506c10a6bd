//! What one caller's call makes a shared server say is nobody else's to hear.

use std::time::Duration;

use serde_json::{Value, json};
use toolyard_test_support::{Answer, Engine, Row, Toolyard, wait_until};

/// A server that goes on with a call after its answer: a little later it logs and asks, as if for whoever waits then.
pub(crate) const INDISCREET: &str = r#"#!/usr/bin/env node
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const tools = ["remember", "wait", "asked"].map((name) => ({ name, inputSchema: { type: "object" } }));
const answers = [];
let asked = 0;
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  if (!line.trim()) return;
  const { id, method, params, result, error } = JSON.parse(line);
  const text = (content) => say({ id, result: { content: [{ type: "text", text: content }] } });
  if (method === undefined) return answers.push(error ? "refused" : JSON.stringify(result));
  if (id === undefined) return;
  if (method === "initialize") return say({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {}, logging: {} }, serverInfo: { name: "s", version: "1" } } });
  if (method === "ping") return say({ id, result: {} });
  if (method === "tools/list") return say({ id, result: { tools } });
  if (method !== "tools/call") return say({ id, error: { code: -32601, message: "unknown" } });
  if (params.name === "asked") return text(answers.join(","));
  if (params.name === "remember") {
    text("remembered");
    return setTimeout(() => {
      say({ method: "notifications/message", params: { level: "info", data: "secret of the first caller" } });
      say({ id: `q-${asked++}`, method: "elicitation/create", params: { message: "secret of the first caller", requestedSchema: { type: "object", properties: {} } } });
    }, 500);
  }
  setTimeout(() => text("waited"), 1500);
}).on("close", () => process.exit(0));
"#;

const PATH: &str = "/mcp/default/servers/indiscreet";

struct Client<'a> {
    toolyard: &'a Toolyard,
    key: String,
    session: String,
}

impl<'a> Client<'a> {
    fn open(toolyard: &'a Toolyard, key: &str) -> Self {
        let body = json!({
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": { "elicitation": {} },
                "clientInfo": { "name": "c", "version": "1" },
            },
        });
        let answer = toolyard
            .request("POST", PATH)
            .key(key)
            .header("accept", "application/json, text/event-stream")
            .json(body)
            .send();
        let session = answer.headers.get("mcp-session-id").and_then(|id| id.to_str().ok());
        let session = session.unwrap_or_else(|| panic!("no session: {} {}", answer.status, answer.text)).to_owned();
        Self { toolyard, key: key.to_owned(), session }
    }

    fn post(&self, body: Value) -> Answer {
        let request = self.toolyard.request("POST", PATH).key(&self.key).header("mcp-session-id", &self.session);
        request.header("accept", "application/json, text/event-stream").json(body).send()
    }

    fn call(&self, id: u32, tool: &str) -> String {
        self.post(
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": {} } }),
        )
        .text
    }
}

#[test]
fn nobody_hears_what_another_callers_call_made_a_shared_server_say() {
    let toolyard = Toolyard::on(Engine::Sqlite).script("indiscreet", INDISCREET).start();
    let _ = toolyard.deploy("indiscreet", &[]);
    let (one, other) = (toolyard.make_key("one", "developer"), toolyard.make_key("other", "developer"));
    let (victim, attacker) = (Client::open(&toolyard, &one), Client::open(&toolyard, &other));

    // Alone a caller is asked, and hears.
    assert!(victim.call(1, "remember").contains("remembered"));
    let own = victim.call(2, "wait");
    Row::of("callers", "a server logs and asks while its only user waits")
        .expected("the user hears it")
        .got(if own.contains("secret") { "the user hears it" } else { "nobody hears it" });
    assert!(own.contains("secret") && own.contains("elicitation/create"), "{own}");

    // The first one's call goes on; the other's is the only one that waits.
    assert!(victim.call(3, "remember").contains("remembered"));
    let heard = attacker.call(4, "wait");
    Row::of("callers", "a server logs and asks for one caller while only another one waits")
        .expected("nobody hears it, the server is told")
        .got(if heard.contains("secret") { "the other one hears it" } else { "nobody hears it, the server is told" });
    assert!(heard.contains("waited") && !heard.contains("secret"), "{heard}");
    wait_until(Duration::from_secs(10), "the question is refused", || attacker.call(5, "asked").contains("refused"));

    // A guessed answer to a question that somebody else has.
    let guess =
        json!({ "jsonrpc": "2.0", "id": "q-0", "result": { "action": "accept", "content": { "by": "guess" } } });
    assert_eq!(attacker.post(guess).status, 202);
    let answers = attacker.call(6, "asked");
    Row::of("callers", "an answer to another caller's question, by the server's own id")
        .expected("it does not reach the server")
        .got(if answers.contains("guess") { "it does" } else { "it does not reach the server" });
    assert!(!answers.contains("guess"), "{answers}");
}
