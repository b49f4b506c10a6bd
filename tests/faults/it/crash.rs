//! The program itself is killed.

use serde_json::json;
use toolyard_test_support::{Row, Toolyard, each_engine, long};

#[test]
fn what_was_acknowledged_before_a_kill_is_there_afterwards() {
    each_engine(|engine| {
        let mut toolyard = Toolyard::on(engine).without_toolbox().start();
        let mut written = Vec::new();
        for round in 0..long(2, 10) {
            for n in 0..10 {
                let name = format!("c-{round}-{n}");
                let put = toolyard.api("PUT", &format!("/credentials/{name}")).json(json!({ "secret": "x" })).send();
                assert_eq!(put.status, 200, "{}", put.text);
                written.push(name);
            }
            toolyard.kill();
            toolyard.serve();
        }
        let lost =
            written.iter().filter(|name| toolyard.api("GET", &format!("/credentials/{name}")).send().status != 200);
        let lost = lost.count();
        Row::of("crash", format!("SIGKILL right after {} acknowledged writes ({engine:?})", written.len()))
            .expected("0 lost")
            .got(format!("{lost} lost"));
        assert_eq!(lost, 0);
    });
}
