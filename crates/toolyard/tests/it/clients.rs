//! Clients that nobody here wrote.

use std::path::PathBuf;
use std::process::Command;

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::ClientLifecycleMode;
use rmcp::service::ClientServiceExt;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::Value;

use crate::harness::{KEY, Toolyard, test_variable};

/// The client programs: a name, the interpreter below `$TOOLYARD_TEST_DIR/clients`, the script, the eras.
const CLIENTS: &[(&str, Interpreter, &str, &[&str])] = &[
    ("TypeScript SDK 1.x", Interpreter::Node, "typescript-1.mjs", &["legacy"]),
    ("TypeScript SDK 2.x", Interpreter::Node, "typescript-2.mjs", &["legacy", "modern"]),
    ("Python SDK 1.12.4", Interpreter::Python("1.12.4"), "python-1.py", &["legacy"]),
    ("Python SDK 1.30.0", Interpreter::Python("1.30.0"), "python-1.py", &["legacy"]),
    ("Python SDK 2.3.0", Interpreter::Python("2.3.0"), "python-2.py", &["legacy", "modern"]),
];

#[derive(Clone, Copy)]
enum Interpreter {
    Node,
    Python(&'static str),
}

/// Every client in every era it speaks lists the tools at `path` and calls one; returns what each saw.
pub(crate) fn everyone_calls(toolyard: &Toolyard, path: &str, tool: &str, arguments: &str) -> Vec<(String, Value)> {
    let clients = PathBuf::from(test_variable("TOOLYARD_TEST_DIR")).join("clients");
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let url = format!("{}{path}", toolyard.url());
    let mut seen = Vec::new();
    for &(name, interpreter, script, eras) in CLIENTS {
        for era in eras {
            let mut command = match interpreter {
                // Node resolves packages from where the script is.
                Interpreter::Node => {
                    let copy = clients.join("typescript").join(script);
                    std::fs::copy(scripts.join(script), &copy).expect("the clients are installed: run `make test`");
                    let mut command = Command::new("node");
                    command.arg(copy);
                    command
                }
                Interpreter::Python(version) => {
                    let mut command = Command::new(clients.join(format!("python-{version}/bin/python")));
                    command.arg(scripts.join(script));
                    command
                }
            };
            let output = command.args([&url, KEY, era, tool, arguments]).output().expect("the client runs");
            assert!(
                output.status.success(),
                "{name} ({era}) at {path}:\n{}\n--- log\n{}",
                String::from_utf8_lossy(&output.stderr),
                toolyard.log_text()
            );
            let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}"));
            seen.push((format!("{name} ({era})"), answer));
        }
    }
    seen
}

/// The same with rmcp, the Rust SDK, in both eras.
pub(crate) fn rmcp_calls(toolyard: &Toolyard, path: &str, tool: &'static str, message: &str) -> Vec<(String, Value)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let url = format!("{}{path}", toolyard.url());
    let modern = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    [("legacy", ClientLifecycleMode::Initialize), ("modern", modern)]
        .into_iter()
        .map(|(era, lifecycle)| (format!("rmcp ({era})"), runtime.block_on(rmcp_call(&url, lifecycle, tool, message))))
        .collect()
}

async fn rmcp_call(url: &str, lifecycle: ClientLifecycleMode, tool: &'static str, message: &str) -> Value {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(KEY);
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("rmcp connects");
    let tools = client.list_all_tools().await.expect("rmcp lists tools");
    let arguments = serde_json::Map::from_iter([("message".to_owned(), Value::from(message))]);
    let result =
        client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.expect("rmcp calls a tool");
    let _ = client.cancel().await;
    let names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
    serde_json::json!({ "tools": names, "content": result.content })
}
