//! Keys that are no keys, and keys that are no more.

use std::time::Duration;

use serde_json::json;
use toolyard_test_support::{Row, Toolyard, each_engine, wait_until};

#[test]
fn a_wrong_key_opens_nothing_and_a_revoked_one_stops_within_a_second() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let wrong = toolyard.request("GET", "/api/v1/servers").key("ty_key_00000000000000000000000000000000").send();
        Row::of("keys", format!("a key that nobody made ({engine:?})")).expected("401").got(wrong.status);
        assert_eq!(wrong.status, 401, "{}", wrong.text);

        let made = toolyard.api("POST", "/keys").json(json!({ "name": "leaver", "role": "admin" })).send().ok();
        let id = made["id"].as_str().or(made["api_key"]["id"].as_str()).expect("an id").to_owned();
        let key = made["key"].as_str().expect("a key").to_owned();
        let status = || toolyard.request("GET", "/api/v1/servers").key(&key).send().status;
        assert_eq!(status(), 200);
        let deleted = toolyard.api("DELETE", &format!("/keys/{id}")).send();
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        let took = wait_until(Duration::from_secs(1), "the key is dead", || status() == 401);
        Row::of("keys", format!("a revoked key ({engine:?})")).expected("dead within 1 s").got(format!("{took:.0?}"));
    });
}
