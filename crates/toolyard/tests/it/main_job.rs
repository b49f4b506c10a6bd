//! The main job as the README and the issue show it: catalog, deploy, tool call, and a server's whole life.

use serde_json::{Value, json};

use crate::clients::{everyone_calls, rmcp_calls};
use crate::harness::{EVERYTHING, Engine, TIME, Toolyard};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

fn main_job(engine: Engine) {
    let toolyard = Toolyard::start(engine);
    assert!(names(&toolyard.json(&["catalog", "search", "everything"])).contains(&EVERYTHING));

    let everything = toolyard.json(&["deploy", EVERYTHING, "--name", "everything", "--wait"]);
    assert_eq!(everything["phase"], "ready", "{everything:#}");
    let time = toolyard.json(&["deploy", TIME, "--name", "time", "--wait"]);
    assert_eq!(time["phase"], "ready", "{time:#}");

    toolyard.json(&["toolsets", "create", "all", "--servers", "everything,time"]);
    let tools = toolyard.json(&["tools", "all"]);
    for wanted in ["everything__echo", "time__get_current_time"] {
        assert!(names(&tools).contains(&wanted), "{wanted} is not in {:?}", names(&tools));
    }
    let result = toolyard.json(&["call", "all", "everything__echo", r#"{"message":"hi"}"#]);
    assert_eq!(result["content"][0]["text"], "Echo: hi", "{result:#}");

    a_call_that_a_tool_refuses_is_one_document(&toolyard);
    a_server_lives(&toolyard);
    clients_of_others_list_and_call(&toolyard);
}

fn a_call_that_a_tool_refuses_is_one_document(toolyard: &Toolyard) {
    let nowhere = r#"{"timezone":"Nowhere/Never"}"#;
    let refused = toolyard.run(&["call", "time", "get_current_time", nowhere, "--output", "json"]);
    let result: Value = serde_json::from_slice(&refused.stdout).expect("one document");
    assert_eq!((&result["isError"], refused.status.code()), (&json!(true), Some(1)), "{result:#}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("tool `get_current_time` answered an error"), "{said}");
}

fn a_server_lives(toolyard: &Toolyard) {
    let shown = toolyard.json(&["servers", "show", "everything"]);
    assert_eq!(shown["revision"], 1);
    let instance = &shown["instances"][0];
    assert_eq!((&instance["toolbox"], &instance["phase"]), (&json!("local"), &json!("ready")), "{shown:#}");
    assert!(instance["pid"].is_u64() && instance["ready_since"].is_string(), "{shown:#}");

    let restarted = toolyard.json(&["servers", "restart", "everything", "--wait"]);
    assert!(restarted["instance_id"].is_string());
    assert_ne!(restarted["instance_id"], shown["instance_id"], "a restart gives a new instance");

    let updated = toolyard.json(&["servers", "update", "everything", "--set-env", "DEMO=1", "--wait"]);
    assert_eq!((&updated["revision"], &updated["phase"]), (&json!(2), &json!("ready")), "{updated:#}");
    let environment = toolyard.json(&["call", "everything", "get-env"]);
    assert!(environment.to_string().contains("DEMO"), "{environment:#}");
    let rolled_back = toolyard.json(&["servers", "rollback", "everything", "--wait"]);
    assert_eq!((&rolled_back["revision"], &rolled_back["phase"]), (&json!(1), &json!("ready")), "{rolled_back:#}");

    let copy = toolyard.json(&["servers", "clone", "everything", "copy", "--wait"]);
    assert_eq!(copy["phase"], "ready");
    let pid = copy["instances"][0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    toolyard.ok(&["servers", "stop", "copy", "--wait"]);
    assert!(!crate::harness::alive(pid), "a stopped server has no process");
    assert_eq!(toolyard.json(&["servers", "show", "copy"])["phase"], "stopped");
    toolyard.ok(&["servers", "start", "copy", "--wait"]);
    assert_eq!(toolyard.json(&["servers", "show", "copy"])["phase"], "ready");
    toolyard.ok(&["servers", "delete", "copy", "--wait"]);
    assert!(!toolyard.run(&["servers", "show", "copy"]).status.success());

    let log = toolyard.ok(&["servers", "logs", "everything", "--tail", "20"]);
    assert!(!log.trim().is_empty(), "the log says at least that the server started");
}

fn clients_of_others_list_and_call(toolyard: &Toolyard) {
    let hello = r#"{"message":"hello"}"#;
    let (toolset, server) = ("/mcp/default/toolsets/all", "/mcp/default/servers/everything");
    let mut through_toolset = everyone_calls(toolyard, toolset, "everything__echo", hello);
    through_toolset.extend(rmcp_calls(toolyard, toolset, "everything__echo", "hello"));
    let mut direct = everyone_calls(toolyard, server, "echo", hello);
    direct.extend(rmcp_calls(toolyard, server, "echo", "hello"));
    for (client, seen) in through_toolset.iter().chain(&direct) {
        assert_eq!(seen["content"][0]["text"], "Echo: hello", "{client}: {seen:#}");
    }
    for (client, seen) in &through_toolset {
        let tools = seen["tools"].as_array().expect("tools");
        assert!(tools.contains(&json!("time__get_current_time")), "{client} lists {tools:?}");
    }
}

#[test]
fn the_main_job_works_on_sqlite_for_clients_that_nobody_here_wrote() {
    main_job(Engine::Sqlite);
}

#[test]
fn the_main_job_works_on_postgres_for_clients_that_nobody_here_wrote() {
    main_job(Engine::Postgres);
}
