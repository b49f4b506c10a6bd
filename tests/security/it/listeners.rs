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

/// An HTTP/2 connection with this many sign-ins on it, of each a head and half a body.
fn half_sign_ins(port: u16, count: u32) -> TcpStream {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut fields = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/api/v1/session"),
        (":authority", "127.0.0.1"),
        ("content-type", "application/json"),
    ] {
        // Literal, without indexing.
        fields.push(0);
        for text in [name, value] {
            fields.push(u8::try_from(text.len()).expect("a short text"));
            fields.extend(text.as_bytes());
        }
    }
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    for stream in (0..count).map(|number| 2 * number + 1) {
        bytes.extend(frame(1, 4, stream, &fields));
        bytes.extend(frame(0, 0, stream, &[b' '; 200]));
    }
    half_sent(port, &bytes)
}

/// How many answers have begun on an HTTP/2 connection.
fn answers(stream: &mut TcpStream, read: &mut Vec<u8>) -> usize {
    let mut chunk = [0; 65_536];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        read.extend_from_slice(&chunk[..count]);
    }
    let (mut at, mut answers) = (0, 0);
    while let Some([a, b, c, kind]) = read.get(at..at + 4) {
        answers += usize::from(*kind == 1);
        at += 9 + usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a frame");
    }
    answers
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[test]
fn requests_that_never_end_fill_no_memory_and_leave_room_for_those_with_a_key() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().setting("request_memory_mb=64").start();
    let before = resident(toolyard.pid());
    let mut open: Vec<_> = (0..20).map(|_| (half_sign_ins(toolyard.port, 200), Vec::new())).collect();
    let mut refused = 0;
    wait_until(Duration::from_secs(20), "most are refused", || {
        refused = open.iter_mut().map(|(stream, read)| answers(stream, read)).sum();
        refused > 2500
    });
    let grown = resident(toolyard.pid()).saturating_sub(before);
    let own = toolyard.api("GET", "/servers").send().status;
    Row::of(AREA, "4,000 sign-ins on 20 HTTP/2 connections, none with its whole body")
        .expected("most are refused, less than 100 MiB more in memory, a key is served")
        .got(format!("{refused} are refused, {grown} MiB more, a key gets {own}"));
    assert!(grown < 100 && own == 200, "{grown} MiB, {own}");
    let password = json!({ "email": "a@b.example", "password": "x".repeat(20_000) }).to_string();
    let large = toolyard.request("POST", "/api/v1/session").json(json!({ "email": password })).send();
    Row::of(AREA, "a sign-in of 20 KB").expected("refused").got(large.status);
    assert!([413, 429].contains(&large.status), "{}", large.text);
    drop(open);
    let sign_in = || toolyard.request("POST", "/api/v1/session").json(json!({ "email": "a", "password": "b" })).send();
    wait_until(Duration::from_secs(20), "there is room again", || [401, 422].contains(&sign_in().status));
}

#[test]
fn bodies_of_one_key_leave_room_for_those_of_others() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().setting("request_memory_mb=64").start();
    let other = toolyard.make_key("other", "developer");
    let begin = |key: &str| {
        let head = format!(
            "PUT /api/v1/credentials/large HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", toolyard.port)).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
        let _ = stream.write_all(&vec![b' '; 900_000]);
        stream.set_nonblocking(true).expect("a setting");
        stream
    };
    let mut open: Vec<_> = (0..60).map(|_| begin(toolyard_test_support::KEY)).collect();
    let mut refused = Vec::new();
    wait_until(Duration::from_secs(20), "some are refused", || {
        for stream in &mut open {
            let mut chunk = [0; 2048];
            if let Ok(read @ 1..) = stream.read(&mut chunk) {
                refused.push(String::from_utf8_lossy(&chunk[..read]).into_owned());
            }
        }
        refused.len() >= 30
    });
    let made = toolyard.request("PUT", "/api/v1/credentials/mine").key(&other);
    let made = made.json(json!({ "secret": "x".repeat(20_000) })).send().status;
    Row::of(AREA, "60 bodies of 900 KB of one key, none whole, with 64 MiB for all")
        .expected("429 with `Retry-After` beyond half, another key is served")
        .got(format!("{} refused: {}; another key {made}", refused.len(), first_line(&refused[0])));
    assert!(refused.iter().all(|answer| answer.starts_with("HTTP/1.1 429")), "{}", refused[0]);
    assert!(refused[0].to_lowercase().contains("retry-after"), "{}", refused[0]);
    assert!([200, 201].contains(&made), "{made}");
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
        let scheme = if host == "public.example" { "https" } else { "http" };
        assert_eq!(ask("/api/v1/servers", &[host], &format!("Origin: {scheme}://{host}\r\n")), 200, "{host}");
    }
    let plain = ask("/api/v1/servers", &["public.example"], "Origin: http://public.example\r\n");
    Row::of("DNS rebinding", "`Origin: http://` of a `public_url` that is https").expected("403").got(plain);
    assert_eq!(plain, 403);
    for host in ["127.0.0.1:1@evil.example", "127.0.0.1:1,evil.example"] {
        let status = ask("/api/v1/servers", &[host], "");
        Row::of("DNS rebinding", format!("`Host: {host}`")).expected("400").got(status);
        assert_eq!(status, 400, "{host}");
    }
    for path in ["/healthz", "/readyz"] {
        let probe = raw(toolyard.port, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(), Duration::from_secs(10));
        assert!(probe.contains(" 200 "), "a probe of HTTP/1.0 has no `Host`: {probe}");
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

    // A developer's keys that it makes itself are no more shares.
    let maker = toolyard.make_key("maker", "developer");
    let children: Vec<String> = (0..4)
        .map(|n| {
            let body = json!({ "name": format!("child-{n}"), "role": "viewer" });
            let made = toolyard.request("POST", "/api/v1/keys").key(&maker).json(body).send().ok();
            made["key"].as_str().expect("a key").to_owned()
        })
        .collect();
    let streams: Vec<_> = children.iter().flat_map(|key| (0..3).map(|_| follow(key)).collect::<Vec<_>>()).collect();
    let open = streams.iter().filter(|(_, answer)| answer.starts_with("HTTP/1.1 200")).count();
    Row::of(AREA, "four keys that one developer's key made open 12 event streams of the 5 it may have")
        .expected("5 open")
        .got(format!("{open} open"));
    assert_eq!(open, 5);
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
fn followed_logs_are_counted_with_event_streams() {
    let toolyard = Toolyard::on(Engine::Sqlite)
        .script("talker", crate::callers::INDISCREET)
        .setting("event_streams_per_principal=5")
        .start();
    let _ = toolyard.deploy("talker", &[]);
    let key = toolyard.make_key("watcher", "developer");
    let follow = |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nAccept: */*\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", toolyard.port)).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut buffer = [0; 2048];
        let read = stream.read(&mut buffer).expect("an answer");
        (stream, String::from_utf8_lossy(&buffer[..read]).into_owned())
    };
    let logs: Vec<_> = (0..10).map(|_| follow("/api/v1/servers/talker/logs?follow=true")).collect();
    let open = logs.iter().filter(|(_, answer)| answer.starts_with("HTTP/1.1 200")).count();
    Row::of(AREA, "a key follows a log 10 times with 5 event streams that it may have")
        .expected("5 open, then 429")
        .got(format!("{open} open, then {}", first_line(&logs[9].1)));
    assert_eq!(open, 5);
    assert!(follow("/api/v1/events").1.starts_with("HTTP/1.1 429"));
    assert!(follow("/api/v1/servers/talker/logs").1.starts_with("HTTP/1.1 200"), "what is not followed is no stream");
    drop(logs);
    let freed = || follow("/api/v1/events").1.starts_with("HTTP/1.1 200");
    wait_until(Duration::from_secs(20), "they have ended", freed);
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
