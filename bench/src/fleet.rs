//! A control plane with many toolboxes: simulated agents in one process, over real mutual TLS.
//!
//! Each simulated agent joins with a token, keeps two links and holds a sync, as a real one does; what it should run it
//! reports as ready at once, so that what is measured is the control plane. Deployments are timed on the control plane's
//! own toolbox, which starts real processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use toolyard_link::tls::AgentKey;
use toolyard_link::{Channel, DialOptions, Dialler, LinkKind};
use toolyard_types::Clock;
use toolyard_types::agent::{
    AGENT_PROTOCOL, AgentCertificate, Desired, Era, JobResult, JoinRequest, JoinToken, McpInfo, Observed,
    ObservedInstance, SyncRequest, SyncResponse, ToolboxReport,
};
use toolyard_types::spec::Lock;
use toolyard_types::state::{Phase, Reason, Status};
use tower::ServiceExt;

use crate::api::{Api, Target};

/// How long anything may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(900);
/// A real agent asks no more often than this.
const LEAST_PERIOD: Duration = Duration::from_millis(100);
/// Linux counts processor time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// `toolyard-bench fleet`
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Where its metrics are read, when that is another listener.
    #[arg(long)]
    operations_url: Option<String>,
    /// Its process, for processor time, memory and descriptors.
    #[arg(long)]
    pid: u32,
    /// Toolboxes connected while deployments are timed.
    #[arg(long, default_value_t = 100)]
    few: usize,
    /// Toolboxes in all.
    #[arg(long, default_value_t = 1000)]
    toolboxes: usize,
    /// Servers on them, placed by label.
    #[arg(long, default_value_t = 1000)]
    servers: usize,
    /// Instances of each.
    #[arg(long, default_value_t = 10)]
    replicas: usize,
    /// Deployments timed.
    #[arg(long, default_value_t = 20)]
    deployments: usize,
    /// The catalog entry deployed for that, which must be in the cache of toolbox `local` by then or be installed once.
    #[arg(long, default_value = "io.github.modelcontextprotocol/server-everything")]
    entry: String,
    /// Changes timed until their toolbox knows.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// How long the fleet is left alone while its cost is measured.
    #[arg(long, default_value_t = 60)]
    quiet_seconds: u64,
}

/// Measures, and prints JSON.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut api = Api::open(&arguments.target).await?;
    let fleet = Fleet::default();
    let mut report = serde_json::Map::new();

    fleet.grow(&mut api, arguments.few).await?;
    report.insert("few".into(), json!(arguments.few));
    let (total, own) = deployments(&mut api, arguments).await?;
    report.insert("deploy_ms".into(), json!({ "total": percentiles(total), "own": percentiles(own) }));

    let began = Instant::now();
    fleet.grow(&mut api, arguments.toolboxes).await?;
    report.insert("toolboxes".into(), json!(arguments.toolboxes));
    report.insert("grow_seconds".into(), json!(began.elapsed().as_secs_f64()));

    let began = Instant::now();
    let wanted = seed(&mut api, &fleet, arguments).await?;
    report.insert("servers".into(), json!(arguments.servers));
    report.insert("instances".into(), json!(wanted));
    report.insert("seed_seconds".into(), json!(began.elapsed().as_secs_f64()));

    tokio::time::sleep(Duration::from_secs(10)).await;
    report.insert("quiet".into(), quiet(&fleet, arguments).await?);
    let before = syncs(arguments).await?;
    let told = changes(&mut api, &fleet, arguments).await?;
    report.insert("change_ms".into(), percentiles(told));
    report.insert("change_sync_ms".into(), json!(before.until(&syncs(arguments).await?)));
    report.insert("resident_bytes".into(), json!(crate::api::resident_bytes(arguments.pid)?));
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", arguments.pid)).context("--pid")?.count();
    report.insert("descriptors".into(), json!(descriptors));
    println!("{}", Value::Object(report));
    fleet.stop.cancel();
    Ok(())
}

/// The simulated agents.
#[derive(Default)]
struct Fleet {
    count: AtomicU64,
    seen: Arc<Seen>,
    stop: CancellationToken,
}

/// What agents were told, and how often they asked.
#[derive(Default)]
struct Seen {
    /// By server: how many instances of it there are, and when that changed last.
    servers: Mutex<HashMap<String, (usize, Instant)>>,
    instances: AtomicU64,
    syncs: AtomicU64,
}

impl Seen {
    fn server(&self, name: &str) -> Option<(usize, Instant)> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn change(&self, name: &str, by: impl FnOnce(usize) -> usize) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = servers.entry(name.to_owned()).or_insert((0, Instant::now()));
        *entry = (by(entry.0), Instant::now());
    }
}

impl Fleet {
    /// Adds agents until there are so many.
    async fn grow(&self, api: &mut Api, count: usize) -> anyhow::Result<()> {
        let mut joining = tokio::task::JoinSet::new();
        let first = usize::try_from(self.count.load(Ordering::Relaxed))?;
        for number in first..count {
            let name = format!("sim-{number}");
            let body = json!({ "name": name, "labels": { "simulated": "yes" } });
            let enrolled = api.expect(Method::POST, "/api/v1/toolboxes", Some(&body)).await?;
            let token = enrolled["token"].as_str().context("no token")?.to_owned();
            let (seen, stop) = (Arc::clone(&self.seen), self.stop.clone());
            joining.spawn(async move { SimulatedAgent::join(&token, seen).await.map(|agent| agent.keep(&stop)) });
            while joining.len() > 16 {
                joining.join_next().await.context("nobody joins")???;
            }
        }
        while let Some(joined) = joining.join_next().await {
            joined??;
        }
        self.count.store(u64::try_from(count)?, Ordering::Relaxed);
        let until = Instant::now() + LIMIT;
        loop {
            let mut online = 0;
            let mut path = "/api/v1/toolboxes?limit=500".to_owned();
            loop {
                let page = api.expect(Method::GET, &path, None).await?;
                let items = page["items"].as_array().cloned().unwrap_or_default();
                let is_online = |it: &&Value| it["state"] == "online" && it["link"]["connected"] == true;
                online += items.iter().filter(|it| it["name"] != "local").filter(is_online).count();
                let Some(next) = page["next_cursor"].as_str() else { break };
                path = format!("/api/v1/toolboxes?limit=500&cursor={next}");
            }
            if online >= count {
                return Ok(());
            }
            ensure!(Instant::now() < until, "only {online} of {count} toolboxes are online");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One agent that runs nothing and says that it runs.
struct SimulatedAgent {
    dialler: Dialler,
    channel: Channel,
    seen: Arc<Seen>,
    generation: u64,
    instances: BTreeMap<toolyard_types::InstanceId, (String, ObservedInstance)>,
    jobs: Vec<JobResult>,
}

impl SimulatedAgent {
    async fn join(token: &str, seen: Arc<Seen>) -> anyhow::Result<Self> {
        let token: JoinToken = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token)?)?;
        let options =
            DialOptions { addresses: token.addresses, ca: token.ca, proxy: None, no_proxy: None, offers: None };
        let dialler = Dialler::new(options)?;
        let channel = dialler.channel();
        let key = AgentKey::generate()?;
        let csr = URL_SAFE_NO_PAD.encode(key.signing_request()?);
        let request = JoinRequest { secret: token.secret, toolbox: token.toolbox, csr };
        let certificate: AgentCertificate = ask(&channel, "/dtma/v1/join", &request).await?;
        dialler.set_certificate(&key, &URL_SAFE_NO_PAD.decode(&certificate.certificate)?)?;
        Ok(Self { dialler, channel, seen, generation: 0, instances: BTreeMap::new(), jobs: Vec::new() })
    }

    /// Keeps its links and its sync until told to stop.
    fn keep(mut self, stop: &CancellationToken) {
        for kind in [LinkKind::Calls, LinkKind::Bulk] {
            let (dialler, stop) = (self.dialler.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    match dialler.link(None, kind).await {
                        Ok(link) => link.serve(axum::Router::new(), &stop, &CancellationToken::new()).await,
                        Err(error) => eprintln!("a link was not made: {error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let asked = Instant::now();
                match self.sync().await {
                    Ok(Some(desired)) => self.apply(desired),
                    Ok(None) => {}
                    Err(error) => eprintln!("a sync failed: {error:#}"),
                }
                tokio::time::sleep(LEAST_PERIOD.saturating_sub(asked.elapsed())).await;
            }
        });
    }

    async fn sync(&self) -> anyhow::Result<Option<Desired>> {
        let request = SyncRequest {
            protocol_min: AGENT_PROTOCOL,
            protocol_max: AGENT_PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            observed: Observed {
                job_progress: Vec::new(),
                toolbox: ToolboxReport {
                    engine: "process".into(),
                    platform: "simulated".into(),
                    runtimes: BTreeMap::from([("node".to_owned(), "22.0.0".to_owned())]),
                    ..ToolboxReport::default()
                },
                instances: self.instances.values().map(|(_, told)| told.clone()).collect(),
                jobs: self.jobs.clone(),
            },
        };
        self.seen.syncs.fetch_add(1, Ordering::Relaxed);
        let answer: SyncResponse = ask(&self.channel, "/dtma/v1/sync", &request).await?;
        Ok(answer.desired)
    }

    fn apply(&mut self, desired: Desired) {
        self.generation = desired.generation;
        self.jobs.retain(|done| desired.jobs.iter().any(|job| job.id == done.id));
        for job in desired.jobs {
            if !self.jobs.iter().any(|done| done.id == job.id) {
                let content = json!({ "name": "simulated", "lockfileVersion": 3, "packages": {} }).to_string();
                let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                let lock = Lock { digest: format!("sha256:{digest}"), version: "1.0.0".into(), content };
                self.jobs.push(JobResult { id: job.id, outcome: Ok(lock) });
            }
        }
        let wanted: BTreeMap<_, _> = desired.instances.iter().map(|it| (it.id, it)).collect();
        let before = self.instances.len();
        for (_, (name, _)) in self.instances.iter().filter(|(id, _)| !wanted.contains_key(id)) {
            self.seen.change(name, |count| count.saturating_sub(1));
        }
        self.instances.retain(|id, _| wanted.contains_key(id));
        let gone = before - self.instances.len();
        let mut came = 0;
        for (id, instance) in wanted {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.instances.entry(id) {
                let name = instance.server_name.to_string();
                self.seen.change(&name, |count| count + 1);
                vacant.insert((name, ready(id)));
                came += 1;
            }
        }
        self.seen.instances.fetch_add(came, Ordering::Relaxed);
        self.seen.instances.fetch_sub(u64::try_from(gone).unwrap_or_default(), Ordering::Relaxed);
    }
}

fn ready(id: toolyard_types::InstanceId) -> ObservedInstance {
    let now = Clock::system().now();
    ObservedInstance {
        id,
        status: Status::new(Phase::Ready, Reason::Answered, "", now),
        pid: Some(1),
        ready_since: Some(now),
        restarts: 0,
        exit: None,
        mcp: Some(McpInfo {
            era: Era::Legacy,
            protocol_version: "2025-11-25".into(),
            server_name: "simulated".into(),
            server_version: "1.0.0".into(),
            tools: 1,
            tool_names: vec!["echo".into()],
        }),
        usage: None,
        container_id: None,
        last_success_at: Some(now),
        failures: 0,
        copies: 0,
        secret_versions: BTreeMap::new(),
    }
}

async fn ask<T: DeserializeOwned>(channel: &Channel, path: &str, body: &impl serde::Serialize) -> anyhow::Result<T> {
    let request = Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(axum::body::Body::from(serde_json::to_vec(body)?))?;
    let answer = tokio::time::timeout(Duration::from_secs(90), channel.clone().oneshot(request)).await??;
    let status = answer.status();
    let bytes: Bytes = answer.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&bytes));
    Ok(serde_json::from_slice(&bytes)?)
}

/// Times deployments on toolbox `local`: in all, and without the time from the server's start to its answer.
async fn deployments(api: &mut Api, arguments: &Arguments) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut total, mut own) = (Vec::new(), Vec::new());
    for number in 0..=arguments.deployments {
        let name = format!("timed-{number}");
        let began = Instant::now();
        let body = json!({ "name": name, "entry": arguments.entry, "toolbox": "local" });
        api.expect(Method::POST, "/api/v1/servers", Some(&body)).await?;
        wait(api, &name, "ready", |server| server["phase"] == "ready").await?;
        let took = began.elapsed();
        let start = start_of(api, &name).await?;
        // The first one installs the package, and keeps it in use.
        if number > 0 {
            api.expect(Method::DELETE, &format!("/api/v1/servers/{name}"), None).await?;
            total.push(took);
            own.push(took.saturating_sub(start));
        }
    }
    Ok((total, own))
}

/// From the start of the server's process to its answer, as its log says.
async fn start_of(api: &mut Api, name: &str) -> anyhow::Result<Duration> {
    let log = api.text(&format!("/api/v1/servers/{name}/logs?tail=100")).await?;
    let said = log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = line["text"].as_str().filter(|_| line["stream"] == "toolyard")?;
        text.strip_prefix("ready after ")?.strip_suffix(" ms")?.parse().ok()
    });
    said.map(Duration::from_millis).with_context(|| format!("the log does not say when it was ready: {log}"))
}

async fn wait(api: &mut Api, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let until = Instant::now() + LIMIT;
    loop {
        let server = api.expect(Method::GET, &format!("/api/v1/servers/{name}"), None).await?;
        if wanted(&server) {
            return Ok(server);
        }
        ensure!(Instant::now() < until && server["phase"] != "failed", "`{name}` is not {what}: {server}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes the servers, and waits until every instance was told to its toolbox and is ready.
async fn seed(api: &mut Api, fleet: &Fleet, arguments: &Arguments) -> anyhow::Result<usize> {
    for number in 0..arguments.servers {
        let body = json!({
            "name": format!("sim-{number}"),
            "entry": arguments.entry,
            "toolbox_labels": { "simulated": "yes" },
            "replicas": arguments.replicas,
        });
        api.expect(Method::POST, "/api/v1/servers", Some(&body)).await?;
    }
    let wanted = arguments.servers * arguments.replicas;
    let until = Instant::now() + LIMIT;
    loop {
        let there = fleet.seen.instances.load(Ordering::Relaxed);
        if there >= u64::try_from(wanted)? {
            break;
        }
        ensure!(Instant::now() < until, "only {there} of {wanted} instances were placed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = format!("sim-{}", arguments.servers - 1);
    wait(api, &last, "ready", |server| server["phase"] == "ready").await?;
    Ok(wanted)
}

/// What the fleet costs while nothing happens.
async fn quiet(fleet: &Fleet, arguments: &Arguments) -> anyhow::Result<Value> {
    let (cpu, asked, histogram) =
        (cpu_of(arguments.pid)?, fleet.seen.syncs.load(Ordering::Relaxed), syncs(arguments).await?);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(arguments.quiet_seconds)).await;
    let took = began.elapsed().as_secs_f64();
    let used = (cpu_of(arguments.pid)? - cpu).as_secs_f64();
    let asked = fleet.seen.syncs.load(Ordering::Relaxed) - asked;
    let asked_f = f64::from(u32::try_from(asked)?);
    Ok(json!({
        "seconds": took,
        "cpu_share_of_one_core": used / took,
        "syncs_per_second": asked_f / took,
        "sync_ms": histogram.until(&syncs(arguments).await?),
    }))
}

/// From the request for a change until the toolboxes know: servers are stopped, and started again.
async fn changes(api: &mut Api, fleet: &Fleet, arguments: &Arguments) -> anyhow::Result<Vec<Duration>> {
    let mut told = Vec::new();
    for number in 0..arguments.changes {
        let name = format!("sim-{}", number / 2 % arguments.servers);
        let (verb, wanted) = if number % 2 == 0 { ("stop", 0) } else { ("start", arguments.replicas) };
        let began = Instant::now();
        api.expect(Method::POST, &format!("/api/v1/servers/{name}/{verb}"), Some(&json!({}))).await?;
        let until = began + LIMIT;
        loop {
            match fleet.seen.server(&name) {
                Some((count, at)) if count == wanted && at >= began => {
                    told.push(at - began);
                    break;
                }
                seen => ensure!(Instant::now() < until, "`{name}` was not told to {verb}: {seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if verb == "start" {
            wait(api, &name, "ready", |server| server["phase"] == "ready").await?;
        } else {
            wait(api, &name, "stopped", |server| server["phase"] == "stopped").await?;
        }
    }
    Ok(told)
}

/// The histogram of what a sync takes in the control plane, before its answer is held.
struct Syncs {
    /// By upper bound in seconds, how many took at most that long.
    buckets: Vec<(f64, f64)>,
}

async fn syncs(arguments: &Arguments) -> anyhow::Result<Syncs> {
    let url = arguments.operations_url.clone().unwrap_or_else(|| arguments.target.url.clone());
    let key_file = arguments.target.key_file.clone();
    let text = Api::open(&Target { url, key_file }).await?.text("/metrics").await?;
    let buckets = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("toolyard_sync_seconds_bucket")?;
        let bound = rest.split("le=\"").nth(1)?.split('"').next()?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, rest.rsplit_once(' ')?.1.parse().ok()?))
    });
    Ok(Syncs { buckets: buckets.collect() })
}

impl Syncs {
    /// The bounds below which half, 99 % and all of the syncs since then are, in milliseconds.
    fn until(&self, later: &Self) -> Value {
        let counts: Vec<_> = self
            .buckets
            .iter()
            .zip(&later.buckets)
            .map(|((bound, before), (_, after))| (*bound, after - before))
            .collect();
        let all = counts.last().map_or(0.0, |(_, count)| *count);
        let below = |share: f64| {
            let found = counts.iter().find(|(_, count)| *count >= all * share);
            found.map(|(bound, _)| bound * 1000.0).filter(|bound| bound.is_finite())
        };
        json!({ "count": all, "p50_at_most": below(0.5), "p99_at_most": below(0.99), "max_at_most": below(1.0) })
    }
}

fn percentiles(mut times: Vec<Duration>) -> Value {
    times.sort();
    let at = |share: usize| {
        let time = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        time.map(|time| time.as_secs_f64() * 1000.0)
    };
    json!({ "count": times.len(), "p50": at(50), "p99": at(99), "max": at(100) })
}

fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    Ok(TICK * crate::load::cpu_of(pid)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_happened_between_two_looks() {
        let before = Syncs { buckets: vec![(0.001, 90.0), (0.01, 100.0), (f64::INFINITY, 100.0)] };
        let after = Syncs { buckets: vec![(0.001, 90.0), (0.01, 199.0), (f64::INFINITY, 200.0)] };
        let between = before.until(&after);
        assert_eq!((&between["count"], &between["p99_at_most"]), (&json!(100.0), &json!(10.0)), "{between}");
        assert!(between["max_at_most"].is_null());
    }
}
