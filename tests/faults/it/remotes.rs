//! Remote servers that lose their sessions, and the sessions that we leave behind at them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, wait_until};

use crate::remote::Remote;

fn is_here<E>(answer: &Result<String, E>) -> bool {
    answer.as_ref().is_ok_and(|text| text == "here")
}

#[test]
fn a_remote_that_loses_its_sessions_is_called_on_however_it_says_so() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let remote = Remote::deploy(&toolyard, "far");
    for (status, names) in [(404, false), (400, false), (401, false), (403, false), (404, true), (400, true)] {
        remote.does.refusal.store(status, Ordering::SeqCst);
        remote.does.refusal_names.store(names, Ordering::SeqCst);
        assert!(is_here(&toolyard.call("far", "echo", json!({}))));
        let opened = remote.does.opened.load(Ordering::SeqCst);
        remote.forget();
        let answers: Vec<_> = (0..10).map(|_| toolyard.call("far", "echo", json!({}))).collect();
        let failed = answers.iter().filter(|answer| !is_here(answer)).count();
        let how = if names { " with an error that names the request" } else { "" };
        // A probe may open one of its own meanwhile.
        let opened = remote.does.opened.load(Ordering::SeqCst) - opened;
        Row::of("remote servers", format!("a remote forgets its sessions and answers {status}{how}"))
            .expected("0 of 10 calls fail, one new session")
            .got(format!("{failed} of 10 calls fail, {opened} new session(s)"));
        assert_eq!(failed, 0, "{answers:?}");
        assert!((1..=2).contains(&opened), "{opened}");
    }
}

#[test]
fn sessions_at_remotes_are_ended_with_what_opened_them() {
    let mut toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let (gone, stays) = (Remote::deploy(&toolyard, "gone"), Remote::deploy(&toolyard, "stays"));
    for name in ["gone", "stays"] {
        assert!(is_here(&toolyard.call(name, "echo", json!({}))));
    }
    let open = |remote: &Remote| remote.does.opened.load(Ordering::SeqCst) - remote.does.closed.load(Ordering::SeqCst);
    wait_until(Duration::from_secs(5), "the probe's session is ended", || open(&gone) == 1);
    let _ = toolyard.json(&["servers", "delete", "gone"]);
    // The peer ends with the first call after the snapshot that has it no more.
    wait_until(Duration::from_secs(10), "a deleted server's session is ended", || {
        let _ = toolyard.call("stays", "echo", json!({}));
        open(&gone) == 0
    });
    assert_eq!(toolyard.stop_by("TERM"), Some(0));
    let left = open(&stays);
    Row::of("remote servers", "sessions after probes, the deletion of one server and SIGTERM")
        .expected("0 left open")
        .got(format!("{left} left open of {}", stays.does.opened.load(Ordering::SeqCst)));
    assert_eq!(left, 0);
}
