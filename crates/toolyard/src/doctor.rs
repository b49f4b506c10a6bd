//! `toolyard dtma doctor`: what an agent needs of its host and its network, checked one by one, with what to do.
//!
//! It changes nothing: a token that is given is read, not used.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::{Request, Response, header};
use nix::sys::statvfs::statvfs;
use serde::Serialize;
use toolyard_dtma::{EngineOptions, Identity, IdentityError};
use toolyard_link::{Body, DialOptions, Dialler, Offers};
use toolyard_types::agent::JoinToken;
use toolyard_types::{Clock, Timestamp};
use tower::ServiceExt;

use crate::agent::{self, chain};
use crate::cli::{DtmaArgs, EXIT_CONFIG, Format, print_json, print_line};
use crate::config::{self, Settings};
use crate::{local, preflight};

/// How far the clocks may be apart before certificates and leases suffer.
const LARGEST_SKEW: Duration = Duration::from_secs(30);
/// Free space below which packages soon do not fit, and below which nothing does.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;
const NO_SPACE_BYTES: u64 = 200 << 20;
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the control plane may take to answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    detail: String,
}

#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, check: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.0.push(Finding { check: check.into(), verdict, detail: detail.into() });
    }

    fn ok(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check, Verdict::Ok, detail);
    }

    fn fail(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.add(check, Verdict::Fail, detail);
    }
}

/// Checks everything and prints it; 1 when something fails.
pub(crate) async fn main(args: &DtmaArgs, format: Format) -> ExitCode {
    let environment = config::process_environment();
    let loaded = match config::load(&environment, Path::new("."), &args.overrides()) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.0.iter().for_each(|problem| eprintln!("toolyard: {problem}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let settings = &loaded.settings;
    let mut report = Report::default();
    data_dir(settings, &mut report);
    let (offers, _listening) = match settings.dtma_listen {
        Some(address) => match agent::listen(address).await {
            Ok((offers, listening)) => (Some(offers), Some(listening)),
            Err(problem) => {
                let detail =
                    format!("{problem}; if that is the agent, stop it to check how the control plane gets here");
                report.fail("listen", detail);
                (None, None)
            }
        },
        None => (None, None),
    };
    let checkable = settings.dtma_listen.is_none() || offers.is_some();
    if let Some(place) = place(settings, args.token.as_deref(), offers, &mut report).filter(|_| checkable) {
        network(settings, &place, &mut report).await;
    }
    engine(settings, &environment, &mut report).await;
    print(&report, format);
    if report.0.iter().any(|finding| finding.verdict == Verdict::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(report: &Report, format: Format) {
    match format {
        Format::Json => print_json(&serde_json::json!({ "items": report.0 })),
        Format::Table => {
            for finding in &report.0 {
                let word = match finding.verdict {
                    Verdict::Ok => "ok  ",
                    Verdict::Warn => "warn",
                    Verdict::Fail => "FAIL",
                };
                print_line(&format!("{word}  {:<24} {}", finding.check, finding.detail));
            }
        }
    }
}

fn data_dir(settings: &Settings, report: &mut Report) {
    let dir = &settings.data_dir;
    let there = preflight::nearest(dir);
    let written = match preflight::unusable(dir) {
        Some(why) => Err(why),
        None if there == dir.as_path() => {
            let probe = dir.join(".doctor");
            let probed = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
            probed.map_err(|error| format!("`{}` cannot be written ({error})", dir.display()))
        }
        None => Ok(()),
    };
    let shown = dir.display();
    match written {
        Ok(()) => report.ok("data directory", format!("`{shown}` can be written")),
        Err(why) => report.fail("data directory", format!("{why}; choose another with --data-dir")),
    }
    match statvfs(there) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let detail = format!("{} MiB free at `{}`", free >> 20, there.display());
            match free {
                free if free < NO_SPACE_BYTES => report.fail("disk", format!("{detail}; make room")),
                free if free < LITTLE_SPACE_BYTES => {
                    report.add("disk", Verdict::Warn, format!("{detail}; packages and images need more before long"));
                }
                _ => report.ok("disk", detail),
            }
        }
        Err(error) => report.add("disk", Verdict::Warn, format!("cannot be measured: {error}")),
    }
}

/// Where the control plane is said to be, and how to speak to it.
struct Place {
    dialler: Dialler,
    /// Whether the agent has joined, so that the control plane must know it.
    joined: bool,
}

fn place(settings: &Settings, token: Option<&str>, offers: Option<Offers>, report: &mut Report) -> Option<Place> {
    let options = match agent::identity_options(settings, token, offers.clone()) {
        Ok((options, unread)) => {
            if let Some(problem) = unread {
                report.add("token", Verdict::Warn, format!("{problem}; the agent has joined, and needs none"));
            }
            options
        }
        Err(problem) => {
            report.fail("token", problem);
            return None;
        }
    };
    match Identity::existing(&options) {
        Ok(identity) => {
            let (now, until) = (Clock::system().now(), identity.expires_at());
            let (toolbox, name) = identity.toolbox();
            let name = name.clone();
            // What the agent says of it, whatever the control plane says of the certificate.
            if options.token.as_ref().is_some_and(|token| token.toolbox != toolbox) {
                let foreign = IdentityError::Foreign { dir: settings.data_dir.clone(), name };
                report.fail("token", chain(&foreign));
                return None;
            }
            if now >= until {
                let detail = format!(
                    "the certificate of toolbox `{name}` ended at {until}; `toolyard toolboxes rejoin {name}` makes a token"
                );
                report.fail("identity", detail);
            } else {
                report.ok("identity", format!("toolbox `{name}`, certificate until {until}"));
            }
            Some(Place { dialler: identity.dialler(), joined: true })
        }
        Err(IdentityError::None(_)) => match &options.token {
            Some(token) => {
                report.ok("identity", "none yet; the token is read, not used");
                from_token(settings, token, offers, report)
            }
            None => {
                let detail = "none yet; give the token that `toolyard toolboxes enroll` printed with --token";
                report.fail("identity", detail);
                None
            }
        },
        Err(error) => {
            report.fail("identity", chain(&error));
            None
        }
    }
}

fn from_token(settings: &Settings, token: &JoinToken, offers: Option<Offers>, report: &mut Report) -> Option<Place> {
    let options = DialOptions {
        addresses: token.addresses.clone(),
        ca: token.ca.clone(),
        proxy: settings.proxy.clone(),
        no_proxy: settings.no_proxy.clone(),
        offers,
    };
    match Dialler::new(options) {
        Ok(dialler) => Some(Place { dialler, joined: false }),
        Err(error) => {
            report.fail("token", chain(&error));
            None
        }
    }
}

async fn network(settings: &Settings, place: &Place, report: &mut Report) {
    if let Some(offers) = place.dialler.offers() {
        let check = format!("reached at {}", offers.address());
        // The connection that the control plane offers is asked over: while one is held unused it offers no other.
        match ask(place).await {
            Ok(answer) => {
                report.ok(check, "the control plane connects, and its CA is the one that was pinned");
                clock_and_certificate(place, &answer, report);
            }
            Err(problem) => report
                .fail(check, format!("{problem}; let its TCP connections in, and see `toolyard toolboxes show` there")),
        }
        return;
    }
    if let Some(proxy) = settings.proxy.as_deref().and_then(|proxy| proxy.parse::<http::Uri>().ok()) {
        let host = proxy.authority().map_or("", |authority| authority.as_str()).rsplit('@').next().unwrap_or_default();
        report.ok("proxy", format!("connections go through {host}"));
    }
    let mut reached = false;
    for address in place.dialler.addresses() {
        if settings.proxy.is_none() {
            dns(&address, report).await;
        }
        match place.dialler.connect(&address).await {
            Ok(_) => {
                reached = true;
                report.ok(format!("reach {address}"), "TLS, and the CA is the one that was pinned");
            }
            Err(error) => {
                let problem = chain(&error);
                let verdict = if place.dialler.addresses().len() > 1 { Verdict::Warn } else { Verdict::Fail };
                report.add(format!("reach {address}"), verdict, format!("{problem}; {}", what_to_do(&problem)));
            }
        }
    }
    if !reached {
        return report.fail("control plane", "no address can be reached");
    }
    match ask(place).await {
        Ok(answer) => clock_and_certificate(place, &answer, report),
        Err(problem) => report.fail("control plane", problem),
    }
}

/// What is to be done about an address that cannot be reached.
fn what_to_do(problem: &str) -> &'static str {
    if problem.contains("UnknownIssuer") {
        "what answers there has not the CA that was pinned: it is another Toolyard, or a proxy that ends TLS (check \
         `agent_addresses`), or the control plane has a new CA, and `toolyard toolboxes rejoin` makes a token"
    } else {
        "let TCP connections to it out, or set `proxy`"
    }
}

async fn dns(address: &str, report: &mut Report) {
    match tokio::time::timeout(Duration::from_secs(10), tokio::net::lookup_host(address)).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.map(|at| at.ip().to_string()).collect();
            report.ok(format!("name of {address}"), found.join(", "));
        }
        Ok(Err(error)) => report.add(
            format!("name of {address}"),
            Verdict::Warn,
            format!("cannot be resolved ({error}); check DNS, or set `agent_addresses` on the control plane"),
        ),
        Err(_) => report.add(format!("name of {address}"), Verdict::Warn, "the resolver did not answer in 10 s"),
    }
}

/// A sync without a body: any answer to it tells what is looked for, and none changes anything.
async fn ask(place: &Place) -> Result<Response<Body>, String> {
    let request = Request::post("/dtma/v1/sync").body(Body::empty()).expect("the parts are constants");
    match tokio::time::timeout(ANSWER_TIMEOUT, place.dialler.channel().oneshot(request)).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the control plane did not answer in {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

/// Any answer carries the control plane's time, and that to a sync tells whether the certificate is accepted.
fn clock_and_certificate(place: &Place, answer: &Response<Body>, report: &mut Report) {
    let status = answer.status().as_u16();
    match (place.joined, status) {
        (true, 401) => report.fail(
            "certificate",
            "the control plane refuses it: revoked or replaced, and `toolyard toolboxes rejoin` makes a token; or its \
             toolbox was removed",
        ),
        (true, _) => report.ok("certificate", "accepted"),
        (false, _) => report.ok("control plane", "answers"),
    }
    let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    let Some(theirs) = date else { return report.add("clock", Verdict::Warn, "the control plane's time is not known") };
    let ours = Clock::system().now();
    let skew = ours.since(theirs).max(theirs.since(ours));
    let detail = format!("{} s from the control plane's", skew.as_secs());
    if skew > LARGEST_SKEW {
        report.fail("clock", format!("{detail}; synchronise it (NTP)"));
    } else {
        report.ok("clock", detail);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let parts: Vec<_> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| name == month)? + 1;
    Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

async fn engine(settings: &Settings, environment: &BTreeMap<String, String>, report: &mut Report) {
    if let EngineOptions::Docker(options) = local::engine_options(settings, environment) {
        return docker(options.host.as_deref().unwrap_or("unix:///var/run/docker.sock"), report).await;
    }
    let python = settings.python.as_deref().unwrap_or("python3");
    let mut found = 0;
    for (what, program) in [("node", settings.node.as_str()), ("npm", settings.npm.as_str()), ("python", python)] {
        match version(program).await {
            Ok(version) => {
                found += 1;
                report.ok(what, format!("`{program}` is {version}"));
            }
            Err(error) => report.add(
                what,
                Verdict::Warn,
                format!("`{program}` does not run ({error}); servers that need it are placed elsewhere"),
            ),
        }
    }
    if found == 0 {
        report.fail(
            "runtimes",
            "neither Node.js nor Python is there, so nothing can run; install one, or use --engine docker",
        );
    }
}

async fn version(program: &str) -> io::Result<String> {
    let run = tokio::process::Command::new(program).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(PROGRAM_TIMEOUT, run).await.map_err(io::Error::from)??;
    if !output.status.success() {
        return Err(io::Error::other(output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(first.trim().to_owned())
}

/// Whether an Engine API answers.
async fn docker(host: &str, report: &mut Report) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ping = async {
        let request = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";
        let mut answer = vec![0_u8; 64];
        let read = if let Some(path) = host.strip_prefix("unix://") {
            let mut stream = tokio::net::UnixStream::connect(path).await?;
            stream.write_all(request).await?;
            stream.read(&mut answer).await?
        } else {
            let address = host.strip_prefix("tcp://").or(host.strip_prefix("http://")).unwrap_or(host);
            let mut stream = tokio::net::TcpStream::connect(address.trim_end_matches('/')).await?;
            stream.write_all(request).await?;
            stream.read(&mut answer).await?
        };
        answer.truncate(read);
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(PROGRAM_TIMEOUT, ping).await {
        Ok(Ok(answer)) if answer.contains(" 200 ") => report.ok("container engine", format!("answers at {host}")),
        Ok(Ok(answer)) => {
            let first = answer.lines().next().unwrap_or_default().to_owned();
            report.fail("container engine", format!("{host} answered `{first}`"));
        }
        Ok(Err(error)) => {
            let detail = format!("cannot be reached at {host} ({error}); start it, or set DOCKER_HOST");
            report.fail("container engine", detail);
        }
        Err(_) => report.fail("container engine", format!("{host} did not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_where_another_ca_answers_is_no_matter_of_the_firewall() {
        let other_ca = what_to_do("cannot connect to a:8081: invalid peer certificate: UnknownIssuer");
        assert!(other_ca.contains("toolboxes rejoin") && !other_ca.contains("TCP"), "{other_ca}");
        assert!(what_to_do("cannot connect to a:8081: connection refused").contains("TCP"));
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(at.to_string(), "1994-11-06T08:49:37.000Z");
        assert!(http_date("Sunday, 06-Nov-94 08:49:37 GMT").is_none());
    }
}
