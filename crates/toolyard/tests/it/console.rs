//! The console in the program: what a browser gets, and what it does not.
//!
//! The program under test must have been compiled after `make console`; `make test` does both in this order.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Engine, KEY, Toolyard};

const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// An answer, as it came over the wire.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("there is no `{name}` in\n{}", self.head))
    }

    fn find(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{}", self.text());
        let problem: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["code"], code, "{problem:#}");
    }

    #[track_caller]
    fn is_page(&self) {
        assert_eq!((self.status, self.header("content-type")), (200, "text/html; charset=utf-8"), "{}", self.text());
        assert!(self.text().contains("id=\"root\""), "{}", self.text());
    }
}

fn ask(toolyard: &Toolyard, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", toolyard.port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", toolyard.port);
    headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).expect("a head of text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body }
}

fn get(toolyard: &Toolyard, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(toolyard, "GET", path, headers, "")
}

/// The page itself; fails when the program has no console.
#[track_caller]
fn page(toolyard: &Toolyard) -> String {
    let page = get(toolyard, "/", &[PAGE]).text();
    assert!(
        page.contains("id=\"root\""),
        "the program has no console; run `make test`, or `make console` first:\n{page}"
    );
    page
}

/// The path of the page's own script.
#[track_caller]
fn script(toolyard: &Toolyard) -> String {
    let page = page(toolyard);
    let path = page.split('"').find(|text| text.starts_with("/assets/") && text.ends_with(".js"));
    path.expect("the page names a script").to_owned()
}

/// The files of the administration pages, as the console's build left them.
#[track_caller]
fn administration_files() -> Vec<String> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../console/dist");
    let (mut found, mut pending) = (Vec::new(), vec![dist.join("assets/admin")]);
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).expect("there are administration pages: run `make console`").flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "js" || extension == "css") {
                let path = path.strip_prefix(&dist).expect("below it").to_str().expect("a plain name");
                found.push(format!("/{path}"));
            }
        }
    }
    assert!(!found.is_empty(), "there are administration pages");
    found
}

#[test]
fn a_browser_gets_the_page_under_a_strict_policy_wherever_it_navigates_and_programs_get_problems() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    page(&toolyard);
    for path in ["/", "/sign-in", "/servers/time/logs", "/no/such/page"] {
        let answer = get(&toolyard, path, &[PAGE]);
        answer.is_page();
        let policy = answer.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert!(answer.find("strict-transport-security").is_none(), "only over TLS");
    }
    for path in ["/api/v1/nothing", "/v0.1/nothing", "/mcp/nothing", "/assets/gone-1a2b3c4d.js"] {
        get(&toolyard, path, &[PAGE]).is_problem(404, "not_found");
    }
    get(&toolyard, "/no/such/page", &[("accept", "application/json")]).is_problem(404, "not_found");
    get(&toolyard, "/", &[]).is_page();
    let listing = get(&toolyard, "/assets/", &[PAGE]);
    listing.is_problem(404, "not_found");
}

#[test]
fn nothing_in_the_page_is_inline_or_from_elsewhere() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let page = page(&toolyard);
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("javascript:"), "{page}");
    for tag in page.split("<script").skip(1) {
        let (tag, rest) = tag.split_once('>').expect("the tag ends");
        assert!(tag.contains(" src=\"/") && rest.trim_start().starts_with("</script>"), "{tag}");
    }
    assert!(!page.contains("=\"http") && !page.contains("=\"//"), "{page}");
}

#[test]
fn a_hashed_file_is_sent_encoded_as_asked_and_kept_for_good() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    let script = script(&toolyard);
    let plain = get(&toolyard, &script, &[]);
    assert_eq!((plain.status, plain.find("content-encoding")), (200, None));
    assert_eq!(plain.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(plain.header("x-content-type-options"), "nosniff");
    assert_eq!(plain.header("content-length"), plain.body.len().to_string());
    let mut versions = vec![plain.header("etag").to_owned()];
    for (accept, encoding) in [("gzip, deflate, br, zstd", "br"), ("gzip, deflate", "gzip"), ("br;q=0.1, gzip", "gzip")]
    {
        let answer = get(&toolyard, &script, &[("accept-encoding", accept)]);
        assert_eq!((answer.status, answer.header("content-encoding")), (200, encoding), "{accept}");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert!(answer.body.len() < plain.body.len());
        let version = answer.header("etag");
        assert!(!versions.contains(&version.to_owned()) || accept.contains("q="), "each form has its own version");
        versions.push(version.to_owned());

        let again = get(&toolyard, &script, &[("accept-encoding", accept), ("if-none-match", version)]);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, version));
        let head = ask(&toolyard, "HEAD", &script, &[("accept-encoding", accept)], "");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
    }
    ask(&toolyard, "POST", &script, &[], "").is_problem(404, "not_found");
}

#[test]
fn what_may_change_is_asked_for_again_and_costs_nothing_while_it_has_not() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    page(&toolyard);
    for path in ["/", "/manifest.webmanifest"] {
        let first = get(&toolyard, path, &[]);
        assert_eq!((first.status, first.header("cache-control")), (200, "no-cache"), "{path}");
        let again = get(&toolyard, path, &[("if-none-match", first.header("etag"))]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
}

#[test]
fn administration_code_reaches_only_those_who_may_use_it() {
    let toolyard = Toolyard::start(Engine::Sqlite);
    page(&toolyard);
    let viewer = json!({"email": "viewer@example.test", "role": "viewer", "password": "correct-horse-battery-2"});
    let owner = format!("Bearer {KEY}");
    let headers = [("authorization", owner.as_str()), ("content-type", "application/json")];
    let added = ask(&toolyard, "POST", "/api/v1/members", &headers, &viewer.to_string());
    assert_eq!(added.status, 201, "{}", added.text());
    let viewer = session(&toolyard, "viewer@example.test", "correct-horse-battery-2");
    let admin = session(&toolyard, "admin@example.test", "correct-horse-battery");
    for file in administration_files() {
        get(&toolyard, &file, &[]).is_problem(401, "unauthenticated");
        get(&toolyard, &file, &[PAGE]).is_problem(401, "unauthenticated");
        assert_eq!(ask(&toolyard, "HEAD", &file, &[("if-none-match", "*")], "").status, 401);
        get(&toolyard, &file, &[("cookie", &viewer)]).is_problem(403, "forbidden");

        let sent = get(&toolyard, &file, &[("cookie", &admin)]);
        assert_eq!((sent.status, sent.header("cache-control")), (200, "private, no-cache"));
        let version = sent.header("etag");
        assert_eq!(get(&toolyard, &file, &[("cookie", &admin), ("if-none-match", version)]).status, 304);
        get(&toolyard, &file, &[("if-none-match", version)]).is_problem(401, "unauthenticated");
    }
}

/// Signs in; the cookie.
#[track_caller]
fn session(toolyard: &Toolyard, email: &str, password: &str) -> String {
    let body = json!({"email": email, "password": password}).to_string();
    let answer = ask(toolyard, "POST", "/api/v1/session", &[("content-type", "application/json")], &body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

#[test]
fn the_console_can_be_switched_off_and_then_says_so() {
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["console=false"]);
    let answer = get(&toolyard, "/", &[PAGE]);
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(answer.text().contains("the setting <code>console</code>"), "{}", answer.text());
    get(&toolyard, "/sign-in", &[PAGE]).is_problem(404, "not_found");
    assert!(!toolyard.log_text().contains("console:"), "{}", toolyard.log_text());
}

#[test]
fn over_tls_browsers_are_told_to_stay_with_it() {
    let toolyard = Toolyard::start_with(Engine::Sqlite, "127.0.0.1", &["public_url=https://toolyard.example.test"]);
    for path in ["/", "/api/v1/version"] {
        assert_eq!(get(&toolyard, path, &[]).header("strict-transport-security"), "max-age=31536000", "{path}");
    }
}
