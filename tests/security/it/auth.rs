//! Attacks on who may do what: secrets through a server of one's own, keys that outlive the one they were made with, and
//! sign-in that is to be shut for somebody else.

use std::time::Duration;

use serde_json::{Value, json};
use toolyard_test_support::{ADMIN, Answer, Engine, KEY, PASSWORD, Row, Toolyard, each_engine, long, raw, wait_until};

const URL: &str = "https://mcp.example.test/mcp";

fn make_key(toolyard: &Toolyard, by: &str, body: Value) -> Answer {
    toolyard.request("POST", "/api/v1/keys").key(by).json(body).send()
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().expect("a text").to_owned()
}

/// A sign-in as the administrator from an address, as a proxy on this machine passes it on.
fn sign_in(toolyard: &Toolyard, address: &str, password: &str, cookie: &str) -> Answer {
    begin_sign_in(toolyard, ADMIN, address, password, cookie).send()
}

fn begin_sign_in<'a>(
    toolyard: &'a Toolyard,
    email: &str,
    address: &str,
    password: &str,
    cookie: &str,
) -> toolyard_test_support::Request<'a> {
    let body = json!({ "email": email, "password": password });
    let request = toolyard.request("POST", "/api/v1/session").header("x-forwarded-for", address);
    request.header("cookie", cookie).json(body)
}

/// The cookie by which a browser is known.
fn device(answer: &Answer) -> String {
    let mut cookies = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let device = cookies.find(|cookie| cookie.starts_with("toolyard_device="));
    device.and_then(|cookie| cookie.split(';').next()).expect("a device").to_owned()
}

#[test]
fn a_key_for_one_server_reads_no_secret_of_the_organization_through_it() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let _ = toolyard.api("PUT", "/credentials/payroll").json(json!({ "secret": "canary-of-payroll" })).send().ok();
        let scope = json!({ "resources": ["mine", "other"] });
        let key = json!({ "name": "narrow", "role": "developer", "scope": scope });
        let key = text(&make_key(&toolyard, KEY, key).ok(), "key");
        let ask = |method: &str, path: &str, body: Value| {
            toolyard.request(method, &format!("/api/v1{path}")).key(&key).json(body).send()
        };
        let bound = json!({ "name": "mine", "url": URL, "credentials": { "X-Key": "payroll" }, "start": false });
        let plain = json!({ "name": "mine", "url": URL, "start": false });
        let refused = |way: &str, answer: &Answer| {
            let got = format!("{} {}", answer.status, answer.code());
            Row::of("credentials", format!("a foreign secret by {way} ({engine:?})"))
                .expected("403 forbidden")
                .got(&got);
            assert_eq!(got, "403 forbidden", "{way}: {}", answer.text);
        };
        refused("deploy", &ask("POST", "/servers", bound.clone()));
        let _ = ask("POST", "/servers", plain).ok();
        refused("update", &ask("PATCH", "/servers/mine", json!({ "credentials": { "X-Key": "payroll" } })));
        // Somebody who may binds it, and takes it away again.
        let bind = json!({ "credentials": { "X-Key": "payroll" } });
        let _ = toolyard.api("PATCH", "/servers/mine").json(bind).send().ok();
        let _ = toolyard.api("PUT", "/flags/server_clone").json(json!({ "everyone": true })).send().ok();
        refused("clone", &ask("POST", "/servers/mine/clone", json!({ "name": "other" })));
        refused("another input", &ask("PATCH", "/servers/mine", json!({ "credentials": { "X-Debug": "payroll" } })));
        let _ = toolyard.api("PATCH", "/servers/mine").json(json!({ "unset_environment": ["X-Key"] })).send().ok();
        refused("rollback", &ask("POST", "/servers/mine/rollback", json!({ "revision": 2 })));
        let wider = json!({ "name": "wider", "role": "developer", "scope": { "resources": ["mine"], "credentials": ["payroll"] } });
        refused("a key of its own", &make_key(&toolyard, &key, wider));
        refused("another secret for it", &ask("PUT", "/credentials/payroll", json!({ "secret": "x" })));
    });
}

#[test]
fn no_key_outlives_the_one_it_was_made_with_however_fast_it_is_made() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let made = make_key(&toolyard, KEY, json!({ "name": "stolen", "role": "admin" })).ok();
        let (id, key) = (text(&made, "id"), text(&made, "key"));
        let children = long(40, 400);
        let begun: Vec<_> = (0..children)
            .map(|n| {
                let body = json!({ "name": format!("child-{n}"), "role": "admin" });
                toolyard.request("POST", "/api/v1/keys").key(&key).json(body).begin()
            })
            .collect();
        let revoked = toolyard.api("DELETE", &format!("/keys/{id}")).send();
        assert_eq!(revoked.status, 204, "{}", revoked.text);
        let answers: Vec<Answer> = begun.into_iter().filter_map(|it| toolyard.runtime().block_on(it).ok()).collect();
        let keys: Vec<String> =
            answers.iter().filter(|it| it.status == 201).map(|it| text(&it.json(), "key")).collect();
        let alive = || {
            let works = |key: &&String| toolyard.request("GET", "/api/v1/session").key(key).send().status == 200;
            keys.iter().filter(works).count()
        };
        let tried = format!("{children} children made while their key is revoked, {} in time ({engine:?})", keys.len());
        wait_until(Duration::from_secs(1), "the children are dead", || alive() == 0);
        let listed = toolyard.api("GET", &format!("/keys?made_by=api_key:{id}&active=true")).send().ok();
        let active = listed["items"].as_array().map_or(0, Vec::len);
        Row::of("keys", tried).expected("0 alive").got(format!("{active} alive"));
        assert_eq!(active, 0);
    });
}

#[test]
fn a_secret_that_was_rotated_away_works_no_more_and_makes_no_power() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let made = make_key(&toolyard, KEY, json!({ "name": "ci", "role": "admin" })).ok();
    let (path, old) = (format!("/keys/{}/rotate", text(&made, "id")), text(&made, "key"));
    let status = |key: &str| toolyard.request("GET", "/api/v1/session").key(key).send().status;
    let next = text(&toolyard.api("POST", &path).json(json!({ "overlap_seconds": 600 })).send().ok(), "key");
    let again = toolyard.request("POST", &format!("/api/v1{path}")).key(&old).json(json!({})).send();
    let child = make_key(&toolyard, &old, json!({ "name": "child", "role": "admin" }));
    let row = Row::of("keys", "the secret of before rotates the key or makes another during the overlap");
    row.expected("403, 403").got(format!("{}, {}", again.status, child.status));
    assert_eq!((again.status, child.status, status(&old), status(&next)), (403, 403, 200, 200));
    let last = text(&toolyard.api("POST", &path).json(json!({})).send().ok(), "key");
    let row = Row::of("keys", "the secrets of before, without an overlap");
    row.expected("401, 401").got(format!("{}, {}", status(&old), status(&next)));
    assert_eq!((status(&old), status(&next), status(&last)), (401, 401, 200));
}

#[test]
fn wrong_passwords_shut_out_nobody_but_whoever_tries_them() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let home = sign_in(&toolyard, "198.51.100.1", PASSWORD, "");
        assert_eq!(home.status, 201, "{}", home.text);
        let known = device(&home);

        // From one address, over all accounts: today's lock-out took 125.
        let attempts = long(125, 1000);
        let begun: Vec<_> = (0..attempts)
            .map(|n| {
                let email = if n % 5 == 0 { ADMIN.to_owned() } else { format!("{n}@example.test") };
                begin_sign_in(&toolyard, &email, "192.0.2.1", "wrong wrong wrong", "").begin()
            })
            .collect();
        let during = sign_in(&toolyard, "198.51.100.7", PASSWORD, "").status;
        let answers: Vec<u16> =
            begun.into_iter().filter_map(|it| toolyard.runtime().block_on(it).ok()).map(|it| it.status).collect();
        let looked_at = answers.iter().filter(|status| **status == 401).count();
        let after = sign_in(&toolyard, "198.51.100.8", PASSWORD, "").status;
        let row = Row::of("sign-in", format!("{attempts} wrong passwords from one address ({engine:?})"));
        row.expected("at most 20 looked at; sign-in elsewhere 201, 201").got(format!("{looked_at}; {during}, {after}"));
        assert!(looked_at <= 20, "{looked_at}");
        assert_eq!((during, after), (201, 201));

        // From very many addresses, at one account.
        let begun: Vec<_> = (0..60)
            .map(|n| begin_sign_in(&toolyard, ADMIN, &format!("203.0.113.{n}"), "wrong wrong wrong", "").begin())
            .collect();
        let answers: Vec<u16> =
            begun.into_iter().filter_map(|it| toolyard.runtime().block_on(it).ok()).map(|it| it.status).collect();
        let looked_at = answers.iter().filter(|status| **status == 401).count();
        // One more attempt is allowed every six seconds: until there is none, the account is not closed to strangers.
        let mut n = 60;
        while sign_in(&toolyard, &format!("203.0.113.{n}"), "wrong wrong wrong", "").status == 401 {
            n += 1;
        }
        let owner = sign_in(&toolyard, "198.51.100.1", PASSWORD, &known).status;
        let row = Row::of("sign-in", format!("one account attacked from 60 addresses ({engine:?})"));
        row.expected("some refused; the browser that is known 201").got(format!("{looked_at} looked at; {owner}"));
        assert!(looked_at < 60, "{looked_at}");
        assert_eq!(owner, 201);
    });
}

/// The most memory that a process had, in MB.
fn peak_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running program");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") / 1024
}

#[test]
fn sign_ins_that_are_hung_up_on_cost_no_more_than_others() {
    let toolyard = Toolyard::on(Engine::Sqlite).without_toolbox().start();
    let known = device(&sign_in(&toolyard, "198.51.100.1", PASSWORD, ""));
    for n in 0..long(400, 4000) {
        let address = format!("10.0.{}.{}", n / 250, n % 250);
        let body = json!({ "email": format!("{n}@example.test"), "password": "wrong wrong wrong" }).to_string();
        let head = format!(
            "POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             X-Forwarded-For: {address}\r\nContent-Length: {}\r\n\r\n",
            toolyard.port,
            body.len()
        );
        let _ = raw(toolyard.port, format!("{head}{body}").as_bytes(), Duration::from_millis(5));
    }
    let began = std::time::Instant::now();
    let owner = sign_in(&toolyard, "198.51.100.1", PASSWORD, &known).status;
    let took = began.elapsed();
    let memory = peak_mb(toolyard.pid());
    let row = Row::of("sign-in", "hundreds of sign-ins from as many addresses, hung up on at once");
    row.expected("a known browser 201 within 10 s, peak below 400 MB")
        .got(format!("{owner} after {took:.1?}, peak {memory} MB"));
    assert_eq!(owner, 201);
    assert!(took < Duration::from_secs(10) && memory < 400, "{took:?}, {memory} MB");
}

#[test]
fn whoever_has_the_host_gives_a_new_password_and_nobody_else_is_let_in_by_the_old_one() {
    each_engine(|engine| {
        let toolyard = Toolyard::on(engine).without_toolbox().start();
        let before = sign_in(&toolyard, "198.51.100.1", PASSWORD, "");
        let session = before.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
        let session = session.filter_map(|cookie| cookie.split(';').next()).collect::<Vec<_>>().join("; ");
        let mut command = toolyard.command();
        command.arg("reset-password").arg("--data-dir").arg(toolyard.data_dir()).env_remove("TOOLYARD_API_KEY");
        if let Some(url) = toolyard.database() {
            command.args(["--set", &format!("database_url={url}")]);
        }
        let output = command.output().expect("the program runs");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}");
        let file = std::fs::read_to_string(toolyard.data_dir().join("first-sign-in.txt")).expect("the new password");
        let password = file.split_once("password: ").and_then(|(_, rest)| rest.split_whitespace().next()).expect("one");
        let old = sign_in(&toolyard, "198.51.100.2", PASSWORD, "").status;
        let left = toolyard.request("GET", "/api/v1/session").header("cookie", &session).status();
        let new = sign_in(&toolyard, "198.51.100.1", password, "").status;
        let row = Row::of("sign-in", format!("a password reset on the host ({engine:?})"));
        row.expected("old password 401, old session 401, new password 201; no password in the output").got(format!(
            "old password {old}, old session {left}, new password {new}; {} password in the output",
            if shown.contains(password) { "the" } else { "no" }
        ));
        assert_eq!((before.status, old, left, new, shown.contains(password)), (201, 401, 401, 201, false), "{shown}");
        let unknown = toolyard
            .command()
            .args(["reset-password", "nobody@example.test", "--data-dir"])
            .arg(toolyard.data_dir())
            .output();
        assert!(!unknown.expect("the program runs").status.success());
    });
}
