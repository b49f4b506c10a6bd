//! Peers that hold connections, requests or streams without using them, and pages that come by a foreign name.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use toolyard_test_support::{Engine, Row, Toolyard, each_engine, long, raw, wait_until};

const AREA: &str = "listeners";

/// A connection on which these bytes were sent and nothing more.
fn half_sent(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(bytes).expect("sent");
    stream.set_nonblocking(true).expect("a setting");
    stream
}

/// Whether the other side has ended it.
fn has_ended(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn half_open_connections_end_and_hold_nobody_else_up() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .without_toolbox()
        .setting("head_timeout_seconds=3")
        .setting("body_timeout_seconds=3")
        .start();
    let each = long(60, 150);
    let heads: [(&str, u16, Vec<u8>); 5] = [
        ("nothing", toolyard.port, vec![]),
        ("half a head", toolyard.port, b"GET /api/v1/servers HTTP/1.1\r\nHost: 127".to_vec()),
        ("half an HTTP/2 preface", toolyard.port, b"PRI * HTTP/2.0\r\n".to_vec()),
        (
            "half a sign-in",
            toolyard.port,
            b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
              Content-Length: 1000\r\n\r\n{\"email\""
                .to_vec(),
        ),
        ("half a TLS handshake with the agents' listener", toolyard.agent_port, b"\x16\x03\x01\x02".to_vec()),
    ];
    let began = Instant::now();
    let mut open: Vec<_> = heads
        .iter()
        .map(|(what, port, bytes)| (*what, (0..each).map(|_| half_sent(*port, bytes)).collect::<Vec<_>>()))
        .collect();
    let mut slowest = Duration::ZERO;
    for (what, streams) in &mut open {
        wait_until(Duration::from_secs(30), "they have ended", || {
            let asked = Instant::now();
            assert_eq!(toolyard.request("GET", "/readyz").send().status, 200);
            slowest = slowest.max(asked.elapsed());
            streams.retain_mut(|stream| !has_ended(stream));
            streams.is_empty()
        });
        Row::of(AREA, format!("{each} connections that send {what}"))
            .expected("ended; `/readyz` answers meanwhile")
            .got(format!("ended after {:.0?} at most, slowest answer {slowest:.0?}", began.elapsed()));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn a_body_that_drips_is_refused_and_one_that_flows_is_not() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .without_toolbox()
        .setting("body_timeout_seconds=1")
        .setting("body_bytes_per_second=2000")
        .start();
    let body = json!({ "secret": "x".repeat(3000) }).to_string();
    let send = |chunk: usize| {
        let mut stream = TcpStream::connect(("127.0.0.1", toolyard.port)).expect("a connection");
        let head = format!(
            "PUT /api/v1/credentials/slow HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            toolyard_test_support::KEY,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a setting");
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        let mut left = body.as_bytes().chunks(chunk);
        loop {
            if let Some(part) = left.next() {
                let _ = stream.write_all(part);
            }
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let dripping = send(10);
    Row::of(AREA, "a body of 100 bytes a second").expected("408 `request_timeout`").got(first_line(&dripping));
    assert!(dripping.starts_with("HTTP/1.1 408") && dripping.contains("request_timeout"), "{dripping}");
    let flowing = send(300);
    Row::of(AREA, "a slow body of 3,000 bytes a second").expected("200").got(first_line(&flowing));
    assert!(flowing.starts_with("HTTP/1.1 200"), "{flowing}");
}

fn first_line(answer: &str) -> String {
    answer.lines().next().unwrap_or("nothing").to_owned()
}

#[test]
fn one_address_cannot_take_every_connection() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .without_toolbox()
        .setting("trusted_proxies=192.0.2.1")
        .setting("connections_per_peer=20")
        .start();
    let held: Vec<_> = (0..60).map(|_| half_sent(toolyard.port, b"")).collect();
    let refused = raw(toolyard.port, b"", Duration::from_secs(5));
    Row::of(AREA, "the 61st connection of an address that may have 20").expected("503").got(first_line(&refused));
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("no_capacity"), "{refused}");
    drop(held);
    let status = || toolyard.request("GET", "/readyz").send().status;
    wait_until(Duration::from_secs(10), "its places are free again", || status() == 200);
}

#[test]
fn a_page_that_rebinds_its_name_to_loopback_reaches_nothing() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .without_toolbox()
        .setting("allowed_hosts=toolyard.example")
        .setting("public_url=https://public.example")
        .start();
    let ask = |path: &str, hosts: &[&str], more: &str| {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let key = toolyard_test_support::KEY;
        let request =
            format!("GET {path} HTTP/1.1\r\n{hosts}Authorization: Bearer {key}\r\n{more}Connection: close\r\n\r\n");
        let answer = raw(toolyard.port, request.as_bytes(), Duration::from_secs(10));
        answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0)
    };
    for path in ["/api/v1/servers", "/", "/metrics", "/v0.1/servers", "/mcp/default/servers/none"] {
        let foreign = ask(path, &["evil.example"], "");
        Row::of("DNS rebinding", format!("`Host: evil.example` at `{path}`")).expected("403").got(foreign);
        assert_eq!(foreign, 403, "{path}");
        assert_eq!(ask(path, &["127.0.0.1"], "Origin: http://evil.example\r\n"), 403, "{path}");
        for (hosts, what) in [(&[][..], "no `Host`"), (&["127.0.0.1", "127.0.0.1"], "two `Host` headers")] {
            let status = ask(path, hosts, "");
            Row::of("DNS rebinding", format!("{what} at `{path}`")).expected("400").got(status);
            assert_eq!(status, 400, "{path}");
        }
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:8080", "toolyard.example", "public.example"] {
        assert_eq!(ask("/api/v1/servers", &[host], ""), 200, "{host}");
        assert_eq!(ask("/api/v1/servers", &[host], &format!("Origin: http://{host}\r\n")), 200, "{host}");
    }
    assert_eq!(ask("/api/v1/servers", &["localhost"], "Origin: https://public.example\r\n"), 200);
}

/// A key of a viewer, and how it is known.
fn viewer(toolyard: &Toolyard, name: &str) -> String {
    let made = toolyard.api("POST", "/keys").json(json!({ "name": name, "role": "viewer" })).send().ok();
    made["key"].as_str().expect("a key").to_owned()
}

#[test]
fn one_key_takes_its_share_of_event_streams_and_requests_and_no_more() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .without_toolbox()
        .setting("event_streams_per_principal=5")
        .setting("requests_per_second_per_principal=10")
        .start();
    let (greedy, other) = (viewer(&toolyard, "greedy"), viewer(&toolyard, "other"));
    let follow = |key: &str| {
        let request = format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\
             Accept: text/event-stream\r\n\r\n"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", toolyard.port)).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut buffer = [0; 2048];
        let read = stream.read(&mut buffer).expect("an answer");
        (stream, String::from_utf8_lossy(&buffer[..read]).into_owned())
    };
    let streams: Vec<_> = (0..20).map(|_| follow(&greedy)).collect();
    let open = streams.iter().filter(|(_, answer)| answer.starts_with("HTTP/1.1 200")).count();
    let refused = &streams[19].1;
    Row::of(AREA, "a viewer's key opens 20 event streams of the 5 it may have")
        .expected("5 open, then 429")
        .got(format!("{open} open, then {}", first_line(refused)));
    assert_eq!(open, 5);
    assert!(refused.starts_with("HTTP/1.1 429") && refused.to_lowercase().contains("retry-after"), "{refused}");
    assert!(follow(&other).1.starts_with("HTTP/1.1 200"));
    drop(streams);
    wait_until(Duration::from_secs(20), "its streams have ended", || follow(&greedy).1.starts_with("HTTP/1.1 200"));

    let status = |key: &str| toolyard.request("GET", "/api/v1/session").key(key).send().status;
    let statuses: Vec<_> = (0..200).map(|_| status(&greedy)).collect();
    let limited = statuses.iter().filter(|status| **status == 429).count();
    Row::of(AREA, "200 requests at once with a key that may send 10 a second")
        .expected("about 100 refused with 429, other keys served")
        .got(format!("{limited} refused, another key {}", status(&other)));
    assert!((50..=150).contains(&limited), "{statuses:?}");
    assert_eq!(status(&other), 200);
}

#[test]
fn refused_changes_do_not_fill_the_audit_log() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let key = viewer(&toolyard, "nobody");
        let refused = (0..400).filter(|n| {
            let path = format!("/api/v1/credentials/c{n}");
            toolyard.request("DELETE", &path).key(&key).send().status == 403
        });
        assert_eq!(refused.count(), 400);
        let rows = toolyard.api("GET", "/audit?outcome=refused&limit=500").send().ok();
        let rows = rows["items"].as_array().map_or(0, Vec::len);
        Row::of("audit", format!("400 refused changes ({engine:?})")).expected("at most 20 lines").got(rows);
        assert!((1..=20).contains(&rows), "{rows}");
    });
}

#[test]
fn metrics_need_a_key_and_show_only_its_organization() {
    let ops = toolyard_test_support::free_port();
    let toolyard =
        Toolyard::on(Engine::Sqlite).without_toolbox().setting(&format!("operations_listen=127.0.0.1:{ops}")).start();
    let open = toolyard.request("GET", "/metrics").send();
    let wrong = toolyard.request("GET", "/metrics").key("ty_key_00000000000000000000000000000000").send();
    Row::of("metrics", "`/metrics` on the public listener without a key, and with a wrong one")
        .expected("401, 401")
        .got(format!("{}, {}", open.status, wrong.status));
    assert_eq!((open.status, wrong.status), (401, 401));
    let own = toolyard.request("GET", "/metrics").key(toolyard_test_support::KEY).send();
    assert_eq!(own.status, 200, "{}", own.text);
    let foreign: Vec<_> = ["toolyard_connections", "toolyard_loop_runs_total", "toolyard_keys_refused_total"]
        .into_iter()
        .filter(|name| own.text.contains(name))
        .collect();
    Row::of("metrics", "an organization's key reads `/metrics`")
        .expected("nothing about the process or others")
        .got(if foreign.is_empty() { "nothing".to_owned() } else { foreign.join(", ") });
    assert!(foreign.is_empty() && own.text.contains("toolyard_servers"), "{}", own.text);
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let all = raw(ops, request.as_bytes(), Duration::from_secs(10));
    assert!(all.starts_with("HTTP/1.1 200") && all.contains("toolyard_connections"), "{all}");
    assert!(all.contains("toolyard_keys_refused_total"), "a wrong key is counted: {all}");
    assert!(toolyard.log_text().contains("an API key was refused"));
}
