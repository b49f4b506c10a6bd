//! A long run: two toolboxes with real servers, used in every way at once, while what the processes need is measured.
//!
//! Nothing here is to be fast. Calls come at a steady pace in both eras, sessions are opened and closed, clients vanish
//! with calls under way, servers are killed, deployed, changed, rolled back and deleted, streams are opened and dropped.
//! What must hold in the end: memory does not rise, and what was deleted leaves nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Target, resident_bytes};
use crate::load::{Era, Route, as_f64, connect, post, read_key};

const EVERYTHING: &str = "io.github.modelcontextprotocol/server-everything";
const TIME: &str = "io.github.modelcontextprotocol/server-time";
/// Longest wait for a server or a toolbox: packages are downloaded.
const LIMIT: Duration = Duration::from_secs(180);
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Between two calls of one client.
const PACE: Duration = Duration::from_millis(50);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Calls on one connection, or in one session, before the client goes away and comes back.
const CALLS_BEFORE_LEAVING: u32 = 100;
const KILL_EVERY: Duration = Duration::from_secs(60);
const VANISH_EVERY: Duration = Duration::from_secs(2);
const CHANGE_EVERY: Duration = Duration::from_secs(10);
/// After everything was deleted: idle connections end and free memory goes back once a minute.
const SETTLE: Duration = Duration::from_secs(80);
/// How much of the memory's rise still counts as flat.
const FLAT_MB_AN_HOUR: f64 = 16.0;
const FLAT_MB: f64 = 4.0;

/// `toolyard-bench soak`
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The control plane's process, which runs toolbox `local` too.
    #[arg(long)]
    pid: u32,
    /// The agent's process.
    #[arg(long)]
    agent_pid: u32,
    /// The agent's toolbox.
    #[arg(long, default_value = "far")]
    toolbox: String,
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

/// Uses the toolboxes, then deletes everything, and prints JSON.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let soak = Arc::new(Soak::open(arguments)?);
    let mut api = soak.api().await?;
    let toolboxes = ["local".to_owned(), soak.arguments.toolbox.clone()];
    // What is loaded once and kept, such as the store's connections, belongs to the baseline.
    for toolbox in &toolboxes {
        soak.deploy(&mut api, "warm", EVERYTHING, toolbox).await?;
        soak.delete(&mut api, "warm").await?;
    }
    tokio::time::sleep(SAMPLE_EVERY).await;
    let baseline = soak.sample()?;
    eprintln!("soak: the baseline is {}", serde_json::to_string(&baseline)?);
    let mut servers = Vec::new();
    for (toolbox, short) in toolboxes.iter().zip(["near", "far"]) {
        for (entry, what) in [(EVERYTHING, "everything"), (TIME, "time"), (EVERYTHING, "killed")] {
            let name = format!("{short}-{what}");
            soak.deploy(&mut api, &name, entry, toolbox).await?;
            servers.push(name);
        }
    }
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    soak.begin(&toolboxes, &stop, &tasks);
    let rows = soak.watch(&stop).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    for name in &servers {
        soak.delete(&mut api, name).await?;
    }
    eprintln!("soak: everything is deleted");
    tokio::time::sleep(SETTLE).await;
    let after = soak.sample()?;
    let rows = rows?;
    let flat =
        |process: fn(&Sample) -> &Needs| Flat::of(rows.iter().map(|row| (row.at, process(&row.sample).resident)));
    println!(
        "{}",
        json!({
            "minutes": soak.arguments.minutes,
            "course": course(&rows),
            "control_plane": flat(|sample| &sample.control_plane),
            "agent": flat(|sample| &sample.agent),
            "flat_mb_an_hour": FLAT_MB_AN_HOUR,
            "flat_mb": FLAT_MB,
            "baseline": baseline,
            "after": after,
            "counts": soak.counts.read(),
            "failures": *soak.counts.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        })
    );
    Ok(())
}

/// What a process needs at one moment.
#[derive(Clone, Debug, Default, Serialize)]
struct Needs {
    resident: u64,
    descriptors: usize,
    sockets: usize,
    threads: usize,
    /// Processes below it, at any depth.
    children: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Sample {
    control_plane: Needs,
    agent: Needs,
}

/// A sample, when it was taken, and what had been done until then.
struct Row {
    at: Duration,
    sample: Sample,
    counts: BTreeMap<&'static str, u64>,
}

/// What was done.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    calls_while_killed: AtomicU64,
    failed_while_killed: AtomicU64,
    sessions: AtomicU64,
    vanished: AtomicU64,
    kills: AtomicU64,
    changes: AtomicU64,
    changes_failed: AtomicU64,
    streams: AtomicU64,
    /// How often which failure was seen; of the calls that must not fail.
    why: std::sync::Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn read(&self) -> BTreeMap<&'static str, u64> {
        let all = [
            ("calls", &self.calls),
            ("failed", &self.failed),
            ("calls_while_killed", &self.calls_while_killed),
            ("failed_while_killed", &self.failed_while_killed),
            ("sessions", &self.sessions),
            ("vanished", &self.vanished),
            ("kills", &self.kills),
            ("changes", &self.changes),
            ("changes_failed", &self.changes_failed),
            ("streams", &self.streams),
        ];
        all.into_iter().map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }

    fn note(&self, what: String) {
        let mut why = self.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A few kinds at most: the rest is in the programs' logs.
        if why.len() < 20 || why.contains_key(&what) {
            *why.entry(what).or_default() += 1;
        }
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

struct Soak {
    arguments: Arguments,
    base: Uri,
    key: HeaderValue,
    counts: Counts,
}

impl Soak {
    fn open(arguments: Arguments) -> anyhow::Result<Self> {
        let (base, key) = (arguments.target.url.parse().context("--url")?, read_key(&arguments.target.key_file)?);
        Ok(Self { arguments, base, key, counts: Counts::default() })
    }

    async fn api(&self) -> anyhow::Result<Api> {
        Api::open(&self.arguments.target).await
    }

    fn mcp(&self, server: &str) -> anyhow::Result<Uri> {
        Ok(format!("{}/mcp/default/servers/{server}", self.arguments.target.url.trim_end_matches('/')).parse()?)
    }

    async fn deploy(&self, api: &mut Api, name: &str, entry: &str, toolbox: &str) -> anyhow::Result<()> {
        let body = json!({ "name": name, "entry": entry, "toolbox": toolbox });
        api.expect(Method::POST, "/api/v1/servers", Some(&body)).await?;
        self.settled(api, name).await
    }

    /// Waits until a server is ready and no rollout of it is under way.
    async fn settled(&self, api: &mut Api, name: &str) -> anyhow::Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let server = api.expect(Method::GET, &format!("/api/v1/servers/{name}"), None).await?;
            let instances = server["instances"].as_array().map_or(0, Vec::len);
            if server["phase"] == "ready" && instances == 1 {
                return Ok(());
            }
            ensure!(Instant::now() < until && server["phase"] != "failed", "`{name}` is not ready: {server}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn delete(&self, api: &mut Api, name: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/servers/{name}");
        api.expect(Method::DELETE, &path, None).await?;
        let until = Instant::now() + LIMIT;
        while api.is_there(&path).await? {
            ensure!(Instant::now() < until, "`{name}` is still there");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn sample(&self) -> anyhow::Result<Sample> {
        let parents = parents()?;
        let of = |pid| needs(pid, &parents);
        Ok(Sample { control_plane: of(self.arguments.pid)?, agent: of(self.arguments.agent_pid)? })
    }

    /// Samples until the time is over.
    async fn watch(&self, stop: &CancellationToken) -> anyhow::Result<Vec<Row>> {
        let (began, length) = (Instant::now(), Duration::from_secs(self.arguments.minutes * 60));
        let mut rows = Vec::new();
        while began.elapsed() < length && !stop.is_cancelled() {
            tokio::time::sleep(SAMPLE_EVERY).await;
            rows.push(Row { at: began.elapsed(), sample: self.sample()?, counts: self.counts.read() });
        }
        Ok(rows)
    }

    /// Starts everything that goes on at once.
    fn begin(self: &Arc<Self>, toolboxes: &[String], stop: &CancellationToken, tasks: &TaskTracker) {
        for short in ["near", "far"] {
            for era in [Era::Legacy, Era::Modern] {
                for (what, tool, arguments) in [
                    ("everything", "echo", r#"{"message":"soak"}"#),
                    ("time", "get_current_time", r#"{"timezone":"UTC"}"#),
                    ("killed", "echo", r#"{"message":"soak"}"#),
                ] {
                    let (soak, name, stop) = (Arc::clone(self), format!("{short}-{what}"), stop.clone());
                    tasks.spawn(async move { soak.keep_calling(&name, (tool, arguments), era, &stop).await });
                }
            }
            let (soak, stopped) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move { soak.keep_vanishing(&format!("{short}-everything"), &stopped).await });
            let (soak, stopped) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move { soak.keep_killing(&format!("{short}-killed"), &stopped).await });
            let (soak, stopped) = (Arc::clone(self), stop.clone());
            let logs = format!("/api/v1/servers/{short}-everything/logs?follow=true&tail=10");
            tasks.spawn(async move { soak.keep_following(&logs, &stopped).await });
        }
        let (soak, stopped) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { soak.keep_following("/api/v1/events", &stopped).await });
        for toolbox in toolboxes {
            let (soak, toolbox, stopped) = (Arc::clone(self), toolbox.clone(), stop.clone());
            tasks.spawn(async move { soak.keep_changing(&toolbox, &stopped).await });
        }
    }

    async fn keep_calling(&self, server: &str, call: (&str, &str), era: Era, stop: &CancellationToken) {
        let killed = server.ends_with("killed");
        while !stop.is_cancelled() {
            if let Err(error) = self.visit(server, call, era, stop).await {
                add(if killed { &self.counts.failed_while_killed } else { &self.counts.failed });
                if !killed {
                    self.counts.note(format!("{error:#}"));
                }
                pause(stop, Duration::from_secs(1)).await;
            }
        }
    }

    /// Comes, calls for a while, and leaves as the protocol asks.
    async fn visit(
        &self,
        server: &str,
        (tool, arguments): (&str, &str),
        era: Era,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let calls = if server.ends_with("killed") { &self.counts.calls_while_killed } else { &self.counts.calls };
        let uri = self.mcp(server)?;
        let route = Route::open(uri.clone(), Some(self.key.clone()), tool.to_owned(), era).await?;
        let mut connection = connect(&uri).await?;
        add(&self.counts.sessions);
        for _ in 0..CALLS_BEFORE_LEAVING {
            if stop.is_cancelled() {
                break;
            }
            let (headers, body) = route.call_of(tool, arguments);
            add(calls);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, post(&mut connection, &uri, headers, body)).await;
            let (status, _, answer) = answer.with_context(|| format!("{server} did not answer"))??;
            let text = String::from_utf8_lossy(&answer);
            let good = status == StatusCode::OK && text.contains("\"content\"") && !text.contains("\"isError\":true");
            ensure!(good, "{server} answered {status}: {}", text.chars().take(200).collect::<String>());
            pause(stop, PACE).await;
        }
        if era == Era::Legacy {
            let (status, _) = self.bare(Method::DELETE, &uri, route.headers()).await?;
            ensure!(status.is_success(), "the end of a session was answered {status}");
        }
        Ok(())
    }

    /// A request without a body, on a connection of its own. Gives the status, and the body to be read or dropped.
    async fn bare(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
    ) -> anyhow::Result<(StatusCode, hyper::body::Incoming)> {
        let mut connection = connect(uri).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(method).uri(path).body(Full::<Bytes>::default())?;
        *request.headers_mut() = headers;
        let host = uri.authority().context("a URL needs a host")?.as_str();
        request.headers_mut().insert(http::header::HOST, HeaderValue::from_str(host)?);
        let answer = connection.send_request(request).await?;
        Ok((answer.status(), answer.into_body()))
    }

    /// Begins a long call and a stream in a session, and is gone without a word.
    async fn keep_vanishing(&self, server: &str, stop: &CancellationToken) {
        for era in [Era::Legacy, Era::Modern].into_iter().cycle() {
            if stop.is_cancelled() {
                return;
            }
            match self.vanish(server, era).await {
                Ok(()) => add(&self.counts.vanished),
                Err(error) => self.counts.note(format!("a client that is to vanish: {error:#}")),
            }
            pause(stop, VANISH_EVERY).await;
        }
    }

    async fn vanish(&self, server: &str, era: Era) -> anyhow::Result<()> {
        let uri = self.mcp(server)?;
        let route = Route::open(uri.clone(), Some(self.key.clone()), "echo".to_owned(), era).await?;
        let stream = match era {
            Era::Legacy => Some(self.bare(Method::GET, &uri, route.headers()).await?),
            Era::Modern => None,
        };
        let mut connection = connect(&uri).await?;
        let (headers, body) = route.call_of("trigger-long-running-operation", r#"{"duration":20,"steps":20}"#);
        // Answered long after we are gone.
        let call = post(&mut connection, &uri, headers, body);
        let answered = tokio::time::timeout(Duration::from_secs(1), call).await;
        ensure!(answered.is_err(), "a long call was answered at once: {:?}", answered.map(|it| it.map(|it| it.2)));
        drop(stream);
        Ok(())
    }

    /// Kills a server's process and waits until it serves again.
    async fn keep_killing(&self, server: &str, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            pause(stop, KILL_EVERY).await;
            if stop.is_cancelled() {
                return;
            }
            match self.kill(server).await {
                Ok(()) => add(&self.counts.kills),
                Err(error) => self.counts.note(format!("killing {server}: {error:#}")),
            }
        }
    }

    async fn kill(&self, server: &str) -> anyhow::Result<()> {
        let mut api = self.api().await?;
        let path = format!("/api/v1/servers/{server}");
        let found = api.expect(Method::GET, &path, None).await?;
        let pid = found["instances"][0]["pid"].as_i64().context("no process")?;
        let status = tokio::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().await?;
        ensure!(status.success(), "no process {pid}");
        // It counts as ready until its agent has told.
        let until = Instant::now() + LIMIT;
        loop {
            let now = api.expect(Method::GET, &path, None).await?;
            let process = now["instances"][0]["pid"].as_i64();
            if now["phase"] == "ready" && process.is_some_and(|process| process != pid) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "`{server}` does not serve again: {now}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Opens a stream of the API, reads for a few seconds, and drops it.
    async fn keep_following(&self, path: &str, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.follow(path, stop).await {
                Ok(()) => add(&self.counts.streams),
                Err(error) => self.counts.note(format!("{path}: {error:#}")),
            }
            pause(stop, Duration::from_secs(1)).await;
        }
    }

    async fn follow(&self, path: &str, stop: &CancellationToken) -> anyhow::Result<()> {
        let uri: Uri = format!("{}{path}", self.base.to_string().trim_end_matches('/')).parse()?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.key.clone());
        let (status, mut body) = self.bare(Method::GET, &uri, headers).await?;
        ensure!(status.is_success(), "answered {status}");
        let read = async { while let Some(Ok(_)) = body.frame().await {} };
        tokio::select! {
            () = read => {}
            () = pause(stop, Duration::from_secs(4)) => {}
        }
        Ok(())
    }

    /// Deploys, changes, rolls back and deletes a server, again and again.
    async fn keep_changing(&self, toolbox: &str, stop: &CancellationToken) {
        let name = format!("changed-{toolbox}");
        while !stop.is_cancelled() {
            pause(stop, CHANGE_EVERY).await;
            if stop.is_cancelled() {
                return;
            }
            match self.change(&name, toolbox).await {
                Ok(()) => add(&self.counts.changes),
                Err(error) => {
                    add(&self.counts.changes_failed);
                    self.counts.note(format!("changing {name}: {error:#}"));
                    if let Ok(mut api) = self.api().await {
                        let _ = self.delete(&mut api, &name).await;
                    }
                }
            }
        }
    }

    async fn change(&self, name: &str, toolbox: &str) -> anyhow::Result<()> {
        let (mut api, path) = (self.api().await?, format!("/api/v1/servers/{name}"));
        self.deploy(&mut api, name, EVERYTHING, toolbox).await?;
        let changed = json!({ "environment": { "SOAK": "changed" } });
        api.expect(Method::PATCH, &path, Some(&changed)).await?;
        self.served_by(&mut api, name, 2).await?;
        api.expect(Method::POST, &format!("{path}/rollback"), Some(&json!({}))).await?;
        self.served_by(&mut api, name, 3).await?;
        self.delete(&mut api, name).await
    }

    /// Waits until nothing but this revision's instance, or that of a later one, is there.
    async fn served_by(&self, api: &mut Api, name: &str, revision: u64) -> anyhow::Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let server = api.expect(Method::GET, &format!("/api/v1/servers/{name}"), None).await?;
            let instances = server["instances"].as_array().cloned().unwrap_or_default();
            let one = instances.len() == 1 && instances[0]["phase"] == "ready";
            if one && server["rollout"].is_null() | (server["rollout"]["state"] != "running") {
                let serving = instances[0]["revision"].as_u64().unwrap_or_default();
                if serving >= revision || (revision == 3 && serving == 1) {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < until, "`{name}` is not at revision {revision}: {server}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn pause(stop: &CancellationToken, length: Duration) {
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = stop.cancelled() => {}
    }
}

/// Which process is whose child.
fn parents() -> anyhow::Result<HashMap<u32, u32>> {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while we look.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    Ok(parents)
}

fn needs(pid: u32, parents: &HashMap<u32, u32>) -> anyhow::Result<Needs> {
    let entries =
        |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).with_context(|| format!("process {pid}"));
    let links: Vec<_> = entries("fd")?.flatten().map(|entry| std::fs::read_link(entry.path())).collect();
    let is_socket = |link: &&std::io::Result<PathBuf>| {
        link.as_ref().is_ok_and(|link| link.to_str().is_some_and(|link| link.starts_with("socket:")))
    };
    let is_below = |start: &&u32| {
        let above = std::iter::successors(parents.get(*start).copied(), |at| parents.get(at).copied());
        above.take(parents.len()).any(|at| at == pid)
    };
    Ok(Needs {
        resident: resident_bytes(pid)?,
        descriptors: links.len(),
        sockets: links.iter().filter(is_socket).count(),
        threads: entries("task")?.count(),
        children: parents.keys().filter(is_below).count(),
    })
}

/// Whether memory rose in the second half.
#[derive(Debug, Serialize)]
struct Flat {
    mb_an_hour: f64,
    /// The last tenth's mean without the middle tenth's.
    mb_over_middle: f64,
    flat: bool,
}

impl Flat {
    fn of(samples: impl Iterator<Item = (Duration, u64)>) -> Self {
        let samples: Vec<_> = samples.map(|(at, bytes)| (at.as_secs_f64() / 3600.0, megabytes(bytes))).collect();
        let half = &samples[samples.len() / 2..];
        let tenth = (samples.len() / 10).max(1);
        let middle = (samples.len() / 2).saturating_sub(tenth / 2);
        let mean_of = |part: &[(f64, f64)]| mean(part.iter().map(|(_, megabytes)| *megabytes));
        let last = samples.len().saturating_sub(tenth);
        let over = mean_of(&samples[last..]) - mean_of(&samples[middle..(middle + tenth).min(samples.len())]);
        let slope = slope(half);
        Self { mb_an_hour: slope, mb_over_middle: over, flat: slope <= FLAT_MB_AN_HOUR && over <= FLAT_MB }
    }
}

fn megabytes(bytes: u64) -> f64 {
    // Kilobytes of a process fit.
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = as_f64(values.len().max(1));
    values.sum::<f64>() / count
}

/// The slope of the line with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let (x, y) = (mean(points.iter().map(|point| point.0)), mean(points.iter().map(|point| point.1)));
    let across: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if along > 0.0 { across / along } else { 0.0 }
}

/// The last sample of every five minutes; of shorter runs one a minute.
fn course(rows: &[Row]) -> Vec<Value> {
    let length = rows.last().map_or(Duration::ZERO, |row| row.at);
    let step = if length < Duration::from_secs(15 * 60) { 60 } else { 300 };
    let number = |row: &Row| row.at.as_secs().saturating_sub(1) / step;
    let mut course = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        if rows.get(at + 1).is_none_or(|next| number(next) != number(row)) {
            course.push(json!({
                "minute": (row.at.as_secs() + 30) / 60,
                "sample": row.sample,
                "counts": row.counts,
            }));
        }
    }
    course
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_rises_by_a_megabyte_an_hour_has_that_slope_and_a_level_one_is_flat() {
        let minute = |number: u64| Duration::from_secs(number * 60);
        let rising: Vec<_> = (0..=60).map(|at| (f64::from(at) / 60.0, f64::from(at) / 60.0)).collect();
        assert!((slope(&rising) - 1.0).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 2.0)]), 0.0);
        assert!(Flat::of((0..30).map(|at| (minute(at), 50 << 20))).flat);
        let leaks = Flat::of((0..30).map(|at| (minute(at), (50 + at) << 20)));
        assert!(!leaks.flat && (leaks.mb_an_hour - 60.0).abs() < 1e-6, "{leaks:?}");
        assert!(Flat::of(std::iter::empty()).flat, "nothing was measured");
    }

    #[test]
    fn processes_below_others_are_counted_at_any_depth() {
        let own = std::process::id();
        let parents = HashMap::from([(u32::MAX, own), (u32::MAX - 1, u32::MAX), (own, 1), (1, 0)]);
        assert_eq!(needs(own, &parents).unwrap().children, 2);
    }
}
