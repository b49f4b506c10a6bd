//! Secrets where they should not be: in logs, in answers to strangers, in output that is kept.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, User, alive, signal, wait_until};

const SECRET: &str = "s3cr&t/+\"canary\" ü<7f3a9c51>";

/// A server that writes its secret to its log in every form that programs do.
const LEAKER: &str = r#"#!/usr/bin/env node
const s = process.env.SERVICE_TOKEN
const b64 = (text) => Buffer.from(text).toString('base64')
const html = (text) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])
const forms = {
  plain: s,
  json: JSON.stringify({ token: s }),
  json_ascii: JSON.stringify(s).replace(/[^ -~]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')),
  base64: b64(s),
  base64_in_basic: b64('user:' + s),
  base64_in_more: b64('ab' + s + 'xyz'),
  base64url: Buffer.from(s).toString('base64url'),
  base64_in_url: encodeURIComponent(b64(s)),
  hex: Buffer.from(s).toString('hex'),
  hex_upper: Buffer.from(s).toString('hex').toUpperCase(),
  url: encodeURIComponent(s),
  form: new URLSearchParams({ s }).toString().slice(2),
  html: html(s),
}
for (const [name, form] of Object.entries(forms)) console.error(`form ${name}: (${form})`)
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line)
  if (id === undefined) return
  const answer = (body) => console.log(JSON.stringify({ jsonrpc: '2.0', id, ...body }))
  if (method === 'initialize')
    answer({ result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'leaker', version: '1' } } })
  else if (method === 'tools/list') answer({ result: { tools: [] } })
  else if (method === 'ping') answer({ result: {} })
  else answer({ error: { code: -32601, message: 'no such method' } })
})
"#;

#[test]
fn a_servers_log_shows_its_secret_in_no_form() {
    for user in [User::Own, User::Plain] {
        let toolyard = Toolyard::on(Engine::Sqlite).user(user).script("leaker", LEAKER).start();
        toolyard.publish(&json!({
            "name": "com.example/with-secret", "description": "Shows its secret.", "version": "1.0.0",
            "packages": [{
                "registryType": "npm", "identifier": "leaker", "version": "1.0.0", "transport": { "type": "stdio" },
                "environmentVariables": [{ "name": "SERVICE_TOKEN", "isSecret": true, "isRequired": true }],
            }],
        }));
        let input = format!("SERVICE_TOKEN={SECRET}");
        let args = ["deploy", "com.example/with-secret", "--name", "leaker", "--input", &input, "--wait"];
        let _ = toolyard.json(&[&args[..], &["--timeout", "120"]].concat());
        let log = || String::from_utf8_lossy(&toolyard.run(&["servers", "logs", "leaker"]).stdout).into_owned();
        wait_until(Duration::from_secs(20), "the log is there", || log().contains("form html:"));
        let log = log();
        let shown: Vec<_> = log
            .lines()
            .filter_map(|line| line.split_once("form ").map(|(_, form)| form))
            .filter(|form| !form.contains("[redacted]") || form.contains("canary"))
            .collect();
        Row::of("secrets", format!("a server writes its secret to its log in 13 forms ({user:?})"))
            .expected("0 are shown")
            .got(format!("{} are shown", shown.len()));
        assert_eq!(shown, Vec::<&str>::new(), "{log}");
        assert_eq!(log.matches("form ").count(), 13, "{log}");
    }
}

#[test]
fn the_first_password_and_key_are_in_no_log() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().prepare();
    let log = toolyard.dir().join("serve.log");
    let output = std::fs::File::create(&log).expect("a file");
    let mut child = toolyard
        .command()
        .args(["serve", "--data-dir"])
        .arg(toolyard.data_dir())
        .args(["--listen", &format!("127.0.0.1:{}", toolyard.port), "--set", "local_toolbox=false"])
        .args(["--agent-listen", &format!("127.0.0.1:{}", toolyard.agent_port)])
        .env_remove("TOOLYARD_API_KEY")
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output)
        .spawn()
        .expect("toolyard starts");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until(Duration::from_secs(60), "it says where the first sign-in is, and takes requests", || {
        text().contains("first-sign-in.txt") && text().contains("is ready at")
    });
    let file = toolyard.data_dir().join("first-sign-in.txt");
    let first = std::fs::read_to_string(&file).expect("the first sign-in");
    let after = |mark: &str| {
        let (_, rest) = first.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {first}"));
        rest.split_whitespace().next().expect("a word").to_owned()
    };
    let (email, password, key) = (after("e-mail address: "), after("password: "), after("TOOLYARD_API_KEY="));
    let mode = std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777;
    let leaked = text().contains(&password) || text().contains(&key);
    let signed_in = toolyard.request("POST", "/api/v1/session").json(json!({ "email": email, "password": password }));
    let signed_in = signed_in.send().status;
    let used = toolyard.request("GET", "/api/v1/servers").key(&key).send().status;
    signal(child.id(), "TERM");
    let _ = child.wait();
    assert!(!alive(child.id()));
    Row::of("secrets", "the output of a first start that is no terminal")
        .expected("no password and no key in it; a file of mode 600")
        .got(format!(
            "{}; a file of mode {mode:o}",
            if leaked { "both in it" } else { "no password and no key in it" }
        ));
    assert_eq!((leaked, mode, signed_in, used), (false, 0o600, 201, 200), "{}", text());
}

#[test]
fn a_stranger_at_the_agent_listener_gets_clear_refusals() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let toolbox = "01890000-0000-7000-8000-000000000000";
    let ask = |method: &str, path: String| {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(10))
            .build()
            .expect("a client");
        let method = method.parse().expect("a method");
        let request = client.request(method, format!("https://127.0.0.1:{}{path}", toolyard.agent_port));
        toolyard.runtime().block_on(async {
            let answer = request.body("{}").send().await.expect("an answer");
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap_or_default();
            let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            (status, problem["code"].as_str().unwrap_or_default().to_owned())
        })
    };
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (method, path) in [
        ("POST", "/dtma/v1/sync".to_owned()),
        ("POST", "/dtma/v1/link".to_owned()),
        ("GET", "/dtma/v1/link".to_owned()),
        ("GET", format!("/dtma/v1/forward/{toolbox}")),
        ("POST", format!("/dtma/v1/forward/{toolbox}/v1/instances")),
        ("POST", "/dtma/v1/forward/x//".to_owned()),
        ("POST", "/dtma/v1/join".to_owned()),
        ("POST", "/dtma/v1/certificate".to_owned()),
        ("DELETE", "/dtma/v1/sync".to_owned()),
        ("GET", "/".to_owned()),
        ("GET", "/api/v1/servers".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("POST", "/mcp/default/servers/x".to_owned()),
    ] {
        let (status, code) = ask(method, path.clone());
        asked += 1;
        if !(400..500).contains(&status) || code.is_empty() {
            wrong.push(format!("{method} {path}: {status} {code}"));
        }
    }
    Row::of("secrets", format!("{asked} requests without a certificate to the agent listener"))
        .expected("each is refused with a problem, none with a 500")
        .got(if wrong.is_empty() { "each is refused with a problem".to_owned() } else { wrong.join(", ") });
    assert_eq!(wrong, Vec::<String>::new());
}
