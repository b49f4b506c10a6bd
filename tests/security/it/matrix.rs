//! Every operation of the API, as nobody, with a wrong key, as each role and from another organization's names.

use serde_json::{Value, json};
use toolyard_test_support::{Engine, Row, Toolyard, each_engine};

const ROLES: [&str; 5] = ["owner", "admin", "operator", "developer", "viewer"];

/// An operation of the API document, on things that do not exist.
struct Operation {
    method: String,
    path: String,
    /// `public`, `signed_in`, or the action it needs.
    access: String,
}

#[test]
fn each_operation_is_open_to_those_whose_role_says_so_and_to_nobody_else() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let operations = operations(&toolyard.api("GET", "/openapi.json").send().ok());
        assert!(operations.len() > 70, "the document lists only {} operations", operations.len());
        let mut wrong = Vec::new();
        let mut asked = 0;
        for key in [None, Some("ty_key_00000000000000000000000000000000")] {
            for operation in operations.iter().filter(|operation| operation.access != "public") {
                asked += 1;
                let status = status(&toolyard, operation, key);
                if status != 401 {
                    wrong.push(format!("{} {} without a good key: {status}", operation.method, operation.path));
                }
            }
        }
        for role in ROLES {
            let key = toolyard.make_key(role, role);
            let session = toolyard.request("GET", "/api/v1/session").key(&key).send().ok();
            let may: Vec<_> =
                session["actions"].as_array().expect("actions").iter().filter_map(Value::as_str).collect();
            // Signing out is asked last of all: it is about the key itself.
            for operation in &operations {
                asked += 1;
                let allowed = ["public", "signed_in"].contains(&operation.access.as_str())
                    || may.contains(&operation.access.as_str());
                let status = status(&toolyard, operation, Some(&key));
                let refused = status == 403;
                let fits = if allowed { status != 401 && !refused && status < 500 && status != 0 } else { refused };
                // A further condition inside, such as a session where a key was given, is a refusal with its own code.
                let own_condition = allowed && refused && operation.access == "signed_in";
                if !fits && !own_condition {
                    wrong.push(format!(
                        "{} {} as {role}: {status}, allowed: {allowed}",
                        operation.method, operation.path
                    ));
                }
            }
        }
        Row::of(
            "routes",
            format!(
                "{} operations, as nobody, with a wrong key, as {} roles ({engine:?})",
                operations.len(),
                ROLES.len()
            ),
        )
        .expected("every answer as the role says")
        .got(format!("{} of {asked} otherwise", wrong.len()));
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn a_key_that_is_narrowed_to_one_server_reaches_no_other() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    for name in ["mine", "other"] {
        let deploy = json!({ "name": name, "url": "http://127.0.0.1:9/mcp", "start": false });
        let made = toolyard.api("POST", "/servers").json(deploy).send();
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let scope = json!({ "actions": [], "resources": ["mine"] });
    let key =
        toolyard.api("POST", "/keys").json(json!({ "name": "narrow", "role": "admin", "scope": scope })).send().ok();
    let key = key["key"].as_str().expect("a key").to_owned();
    let mut reached = Vec::new();
    let operations = operations(&toolyard.api("GET", "/openapi.json").send().ok());
    for operation in operations.iter().filter(|it| it.path.starts_with("/api/v1/servers/nothing-there")) {
        let path = operation.path.replace("nothing-there", "other");
        let status = toolyard.request(&operation.method, &path).key(&key).json(json!({})).status();
        if !matches!(status, 403 | 404) {
            reached.push(format!("{} {path}: {status}", operation.method));
        }
    }
    let list = toolyard.request("GET", "/api/v1/servers").key(&key).send().ok();
    let listed: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect();
    Row::of("routes", "a key narrowed to one server, at every route of another")
        .expected("403 or 404, and not listed")
        .got(format!("{} otherwise, listed: {}", reached.len(), json!(listed)));
    assert!(reached.is_empty(), "{reached:#?}");
    assert_eq!(listed, ["mine"]);
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let Some(access) = operation["x-toolyard-action"].as_str() else { continue };
            let path = path.replace("{id}", "0190f5b2-0000-7000-8000-000000000000").replace("{version}", "1.0.0");
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.replace("{name}", "nothing-there"),
                access: access.to_owned(),
            });
        }
    }
    // Ending the session is about whoever asks, so it comes last.
    found.sort_by_key(|operation| (operation.path == "/api/v1/session", operation.method == "DELETE"));
    found
}

fn status(toolyard: &Toolyard, operation: &Operation, key: Option<&str>) -> u16 {
    let mut request = toolyard.request(&operation.method, &operation.path);
    if let Some(key) = key {
        request = request.key(key);
    }
    if operation.method != "GET" {
        request = request.json(json!({}));
    }
    request.status()
}
