//! What runs in one Toolyard is brought to another, and its secrets stay where they are.

use serde_json::{Value, json};

use crate::harness::{Engine, KEY, Toolyard};

const ENTRY: &str = "io.github.brave/brave-search-mcp-server";
const SECRET: &str = "staging-secret-4be1";

fn revision(toolyard: &Toolyard) -> Value {
    toolyard.json(&["servers", "revisions", "search"])["items"][0].clone()
}

#[test]
fn a_server_is_promoted_with_its_settings_and_bound_to_the_credentials_of_the_other_side() {
    let (staging, production) = (Toolyard::start(Engine::Sqlite), Toolyard::start(Engine::Sqlite));
    let secret = format!("BRAVE_API_KEY={SECRET}");
    let deploy = ["deploy", ENTRY, "--name", "search", "--stopped", "--input", &secret, "--set-env", "MODE=one"];
    let here = staging.json(&[&deploy[..], &["--set-env", "OLD=1", "--observe", "30"]].concat());
    let url = production.url();
    let promote = ["servers", "promote", "search", "--to", &url, "--to-key", KEY, "--stopped"];

    let unbound = staging.run(&promote);
    assert!(!unbound.status.success(), "there is no such credential there");
    let told = String::from_utf8_lossy(&unbound.stderr);
    assert!(told.contains("there is no credential `search-brave-api-key`"), "{told}");
    assert!(told.contains("`--credential NAME=CREDENTIAL`") && !told.contains("--input"), "{told}");

    let file = production.dir.path().join("secret");
    std::fs::write(&file, "production-secret").expect("a file");
    production.json(&["credentials", "set", "brave", "--secret", &format!("@{}", file.display())]);
    let there = staging.json(&[&promote[..], &["--credential", "BRAVE_API_KEY=brave"]].concat());
    assert_eq!((&there["entry"], &there["revision"]), (&here["entry"], &json!(1)), "{there:#}");
    assert_eq!((&there["observe_seconds"], &there["enabled"]), (&json!(30), &json!(false)));

    // What is bound there stays bound; what was taken away here is taken away there.
    staging.json(&["servers", "update", "search", "--set-env", "MODE=two", "--unset-env", "OLD"]);
    staging.json(&promote);
    let environment = revision(&production)["spec"]["runtime"]["environment"].clone();
    assert_eq!(environment["MODE"], json!([{ "text": "two" }]), "{environment:#}");
    assert!(environment["OLD"].is_null() && environment["BRAVE_API_KEY"][0]["credential"].is_string());
    staging.json(&promote);
    assert_eq!(revision(&production)["number"], 2, "nothing changed, so nothing is made");
    assert!(!production.log_text().contains(SECRET));
    let listed = production.json(&["credentials", "list"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "no credential came along: {listed:#}");
}
