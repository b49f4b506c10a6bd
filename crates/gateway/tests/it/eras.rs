use crate::world::*;
use http::StatusCode;
use toolyard_mcp::era::Era;

const OLD: &str = "/mcp/default/servers/old";
const NEW: &str = "/mcp/default/servers/new";

#[tokio::test]
async fn every_pair_of_eras_calls_a_tool() {
    let world = world().server("old", Era::Legacy).server("new", Era::Modern).start().await;
    let echoed = |response: serde_json::Value| response["result"]["params"]["arguments"]["v"].clone();
    for path in [OLD, NEW] {
        let session = world.initialize(path, "2025-06-18").await;
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"v":1}}}"#;
        let legacy = json(world.legacy(path, &session, body).await).await;
        assert!(legacy["result"].get("resultType").is_none(), "{legacy}");
        assert_eq!(echoed(legacy), 1);
        let modern =
            json(world.modern(path, "tools/call", Some("echo"), r#""name":"echo","arguments":{"v":2}"#).await).await;
        assert_eq!(modern["result"]["resultType"], "complete");
        assert_eq!(modern["id"], "m-1");
        assert_eq!(echoed(modern), 2);
    }
}

#[tokio::test]
async fn a_legacy_client_is_described_to_a_modern_server_as_it_described_itself() {
    let world = world().server("new", Era::Modern).start().await;
    let session = world.initialize(NEW, "2025-06-18").await;
    world.legacy(NEW, &session, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#).await;
    let line = world.fixture("new").line(|line| line.contains("echo")).await;
    let meta = &serde_json::from_str::<serde_json::Value>(&line).unwrap()["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "tester");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"]["roots"].is_object());
}

#[tokio::test]
async fn initialize_and_discover_describe_servers_of_both_eras() {
    let world = world().server("old", Era::Legacy).server("new", Era::Modern).start().await;
    for (path, name) in [(OLD, "old"), (NEW, "new")] {
        for (asked, agreed) in [("2024-11-05", "2024-11-05"), ("2026-07-28", "2025-11-25"), ("x", "2025-11-25")] {
            let body =
                format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{asked}"}}}}"#);
            let result = json(world.post(path, &[], body).await).await;
            assert_eq!(result["result"]["protocolVersion"], agreed);
            assert_eq!(result["result"]["serverInfo"]["name"], name);
        }
        let discovered = json(world.modern(path, "server/discover", None, "").await).await;
        let result = &discovered["result"];
        assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], name);
        assert!(result["supportedVersions"].as_array().unwrap().contains(&"2026-07-28".into()));
        assert!(result["capabilities"]["tools"].is_object() && result["ttlMs"].is_number());
        assert!(result["capabilities"]["resources"].get("subscribe").is_none(), "not carried across eras");
    }
}

#[tokio::test]
async fn lists_of_one_server_keep_its_names_and_leave_hidden_ones_out() {
    let world = world().server("old", Era::Legacy).server("new", Era::Modern).start().await;
    for path in [OLD, NEW] {
        let session = world.initialize(path, "2025-06-18").await;
        let legacy =
            json(world.legacy(path, &session, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await).await;
        assert_eq!(tool_names(&legacy), ["echo", "progress", "slow"]);
        let modern = text(world.modern(path, "tools/list", None, "").await).await;
        assert!(modern.contains(r#"{"name":"echo","inputSchema":{"type":"object","x":1.0}}"#), "{modern}");
        assert!(modern.contains(r#""ttlMs":0,"cacheScope":"private""#), "{modern}");
    }
    let cursor = json(world.modern(OLD, "tools/list", None, r#""cursor":"x""#).await).await;
    assert_eq!(cursor["error"]["code"], -32602);
}

#[tokio::test]
async fn modern_requests_are_checked_in_the_protocols_order() {
    let world = world().server("old", Era::Legacy).start().await;
    let good = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let version = ("mcp-protocol-version", "2026-07-28");
    let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "echo"));
    let later = good.replace("2026-07-28", "2027-01-01");
    let no_version = good.replace("io.modelcontextprotocol/protocolVersion", "x");
    let no_capabilities = good.replace("io.modelcontextprotocol/clientCapabilities", "x");
    for (headers, body, status, code) in [
        (vec![version, method, name], no_version.as_str(), 400, -32602),
        (vec![version, method, name], &no_capabilities, 400, -32602),
        (vec![method, name], good, 400, -32020),
        (vec![("mcp-protocol-version", "2025-06-18"), method, name], good, 400, -32020),
        (vec![version, name], good, 400, -32020),
        (vec![version, ("mcp-method", "Tools/call"), name], good, 400, -32020),
        (vec![version, method], good, 400, -32020),
        (vec![version, method, ("mcp-name", "other")], good, 400, -32020),
        (vec![("mcp-protocol-version", "2027-01-01"), method, name], &later, 400, -32022),
    ] {
        let response = world.post(OLD, &headers, body.to_owned()).await;
        assert_eq!(response.status().as_u16(), status, "{headers:?} {body}");
        let error = json(response).await;
        assert_eq!((&error["error"]["code"], &error["id"]), (&code.into(), &9.into()), "{headers:?} {body}");
    }
    let encoded = world.post(OLD, &[version, method, ("mcp-name", "=?base64?ZWNobw==?=")], good).await;
    assert_eq!(encoded.status(), StatusCode::OK);
    for gone in ["ping", "initialize", "logging/setLevel", "resources/subscribe", "nonsense"] {
        let response = world.modern(OLD, gone, None, "").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{gone}");
        assert_eq!(json(response).await["error"]["code"], -32601);
    }
}

#[tokio::test]
async fn a_missing_resource_has_the_code_of_the_clients_era() {
    let world = world().server("old", Era::Legacy).start().await;
    let modern = json(world.modern(OLD, "resources/read", Some("file:///x"), r#""uri":"file:///x""#).await).await;
    assert_eq!(modern["error"]["code"], -32602);
    let session = world.initialize(OLD, "2025-06-18").await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///x"}}"#;
    assert_eq!(json(world.legacy(OLD, &session, body).await).await["error"]["code"], -32002);
}

#[tokio::test]
async fn log_messages_reach_a_modern_client_only_when_it_asked() {
    let world = world().server("old", Era::Legacy).start().await;
    let silent = world.modern(OLD, "tools/call", Some("log"), r#""name":"log""#).await;
    assert_eq!(silent.headers()["content-type"], "application/json");
    let session = world.initialize(OLD, "2025-06-18").await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"log"}}"#;
    assert_eq!(events(world.legacy(OLD, &session, body).await).await.len(), 2);
}
