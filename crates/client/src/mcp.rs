//! Calls through the gateway as the CLI makes them: single stateless MCP requests (2026-07-28).

use futures_util::StreamExt;
use serde_json::{Value, json};

use toolyard_types::Code;

use crate::Client;

/// The protocol version the client speaks.
const VERSION: &str = "2026-07-28";
/// The longest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why an MCP request failed.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The gateway or the server refused.
    #[error("{message} ({})", .problem.clone().unwrap_or_else(|| code.to_string()))]
    Refused {
        /// The JSON-RPC error code or the HTTP status.
        code: i64,
        /// The problem code, when it was Toolyard that refused.
        problem: Option<String>,
        /// What it said.
        message: String,
        /// Under which id it is in Toolyard's log and call records.
        request_id: Option<String>,
    },
    /// The gateway cannot be reached.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not MCP.
    #[error("{0} did not answer as an MCP server")]
    NotMcp(String),
}

/// A tool call to make.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments, an object.
    pub arguments: Value,
}

impl Client {
    /// All tools at an MCP path such as `/mcp/default/toolsets/all`.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn list_tools(&self, mcp_path: &str) -> Result<Vec<Value>, McpError> {
        let mut tools = Vec::new();
        let mut cursor = None;
        loop {
            let params = cursor.map_or(json!({}), |cursor: Value| json!({ "cursor": cursor }));
            let mut result = self.mcp_request(mcp_path, "tools/list", None, params, |_| {}).await?;
            if let Value::Array(page) = result["tools"].take() {
                tools.extend(page);
            }
            cursor = match result["nextCursor"].take() {
                Value::String(next) if !next.is_empty() => Some(Value::String(next)),
                _ => return Ok(tools),
            };
        }
    }

    /// Calls a tool and returns the `CallToolResult`; `progress` gets notifications as they arrive.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn call_tool(
        &self,
        mcp_path: &str,
        call: &ToolCall,
        progress: impl FnMut(&Value),
    ) -> Result<Value, McpError> {
        let params = json!({ "name": call.name, "arguments": call.arguments });
        self.mcp_request(mcp_path, "tools/call", Some(&call.name), params, progress).await
    }

    async fn mcp_request(
        &self,
        mcp_path: &str,
        method: &str,
        name: Option<&str>,
        mut params: Value,
        mut notified: impl FnMut(&Value),
    ) -> Result<Value, McpError> {
        let url = format!("{}{mcp_path}", self.base());
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": { "name": "toolyard", "version": env!("CARGO_PKG_VERSION") },
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": 1,
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = self
            .request(reqwest::Method::POST, &url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", method)
            .timeout(std::time::Duration::from_secs(86_400))
            .json(&body);
        if let Some(name) = name {
            request = request.header("mcp-name", name);
        }
        let unreachable =
            |source: reqwest::Error| McpError::Unreachable { url: url.clone(), source: source.without_url() };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let events =
            answer.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut chunks = answer.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.next().await {
            buffer.extend_from_slice(&chunk.map_err(unreachable)?);
            if buffer.len() > MAX_ANSWER_BYTES {
                return Err(McpError::NotMcp(url));
            }
            while events && let Some(message) = next_event(&mut buffer) {
                if message.get("method").is_some() {
                    notified(&message);
                } else {
                    return outcome(message, &url);
                }
            }
        }
        match serde_json::from_slice::<Value>(&buffer) {
            Ok(message) if !events => outcome(message, &url),
            _ if !status.is_success() => {
                let (code, message) = (status.as_u16().into(), status.to_string());
                Err(McpError::Refused { code, problem: None, message, request_id: None })
            }
            _ => Err(McpError::NotMcp(url)),
        }
    }
}

/// Takes the next whole server-sent event out of `buffer` and reads its data as JSON; events that hold no
/// JSON (keep-alives) are passed over.
fn next_event(buffer: &mut Vec<u8>) -> Option<Value> {
    loop {
        let (end, length) = find_blank_line(buffer)?;
        let event: Vec<u8> = buffer.drain(..end + length).take(end).collect();
        let data: String = String::from_utf8_lossy(&event)
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|line| line.strip_prefix(' ').unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        if let Ok(message) = serde_json::from_str(&data) {
            return Some(message);
        }
    }
}

fn find_blank_line(buffer: &[u8]) -> Option<(usize, usize)> {
    let lf = buffer.windows(2).position(|pair| pair == b"\n\n").map(|at| (at, 2));
    let crlf = buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| (at, 4));
    lf.into_iter().chain(crlf).min()
}

fn outcome(mut message: Value, url: &str) -> Result<Value, McpError> {
    if message.get("result").is_some() {
        return Ok(message["result"].take());
    }
    // A problem document of the gateway, or a JSON-RPC error.
    let error = if message.get("error").is_some() { message["error"].take() } else { message };
    let text = error["message"].as_str().or(error["detail"].as_str());
    let request_id = error["data"]["request_id"].as_str().or(error["request_id"].as_str());
    match text {
        Some(text) => Err(McpError::Refused {
            code: error["code"].as_i64().or(error["status"].as_i64()).unwrap_or(0),
            problem: error["data"]["code"].as_str().or(error["code"].as_str()).filter(is_problem).map(str::to_owned),
            message: text.to_owned(),
            request_id: request_id.map(str::to_owned),
        }),
        None => Err(McpError::NotMcp(url.to_owned())),
    }
}

/// A server may put anything in that place.
fn is_problem(code: &&str) -> bool {
    Code::ALL.iter().any(|known| known.as_str() == *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_keep_alives_passed_over() {
        let mut buffer = b": hi\n\nevent: message\r\ndata: {\"id\":1}\r\n\r\ndata: {\"id\"".to_vec();
        assert_eq!(next_event(&mut buffer), Some(json!({"id":1})));
        assert_eq!(next_event(&mut buffer), None);
        buffer.extend_from_slice(b":2}\n\n");
        assert_eq!(next_event(&mut buffer), Some(json!({"id":2})));
    }

    #[test]
    fn a_problem_and_a_json_rpc_error_both_say_what_is_wrong() {
        let rpc = outcome(json!({"error":{"code":-32602,"message":"no tool"}}), "u").expect_err("refused");
        let problem =
            outcome(json!({"status":401,"code":"unauthenticated","detail":"no key"}), "u").expect_err("refused");
        assert_eq!(
            (rpc.to_string(), problem.to_string()),
            ("no tool (-32602)".into(), "no key (unauthenticated)".into())
        );
        let ours = json!({"error":{"code":-32603,"message":"it ended","data":{"code":"upstream_failed"}}});
        assert_eq!(outcome(ours, "u").expect_err("refused").to_string(), "it ended (upstream_failed)");
    }
}
