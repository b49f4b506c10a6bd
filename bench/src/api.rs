//! The API with much in it: seeds a catalog and stopped servers, then measures searches and lists.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// How long seeding may take.
const SEED_LIMIT: Duration = Duration::from_secs(300);
/// Words that generated entries are made of, so that searches find some and not all.
const WORDS: &[&str] = &[
    "weather",
    "calendar",
    "invoice",
    "ticket",
    "forecast",
    "search",
    "storage",
    "metrics",
    "travel",
    "payment",
    "database",
    "browser",
    "memory",
    "document",
    "translate",
    "image",
    "music",
    "mail",
    "contact",
    "deploy",
];

/// Which Toolyard is measured.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// The Toolyard to measure.
    #[arg(long)]
    pub(crate) url: String,
    /// A file with an API key.
    #[arg(long)]
    pub(crate) key_file: PathBuf,
}

/// `toolyard-bench api`
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// How many catalog entries to seed; none when there are as many already.
    #[arg(long, default_value_t = 10_000)]
    entries: usize,
    /// How many stopped servers to seed.
    #[arg(long, default_value_t = 1_000)]
    servers: usize,
    /// How many requests of each kind.
    #[arg(long, default_value_t = 500)]
    requests: usize,
    /// How long to rest between seeding and measuring, as an installation does.
    #[arg(long, default_value_t = 20)]
    settle_seconds: u64,
    /// The process whose resident memory is reported.
    #[arg(long)]
    pid: Option<u32>,
}

/// Seeds, measures, and prints JSON.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut api = Api::open(&arguments.target).await?;
    seed_entries(&mut api, arguments.entries).await?;
    seed_servers(&mut api, arguments.servers).await?;
    tokio::time::sleep(Duration::from_secs(arguments.settle_seconds)).await;
    let mut rows = Vec::new();
    for (what, paths) in [
        ("catalog search", searches()),
        ("catalog search with a typing error", vec!["/api/v1/catalog/entries?search=wether".to_owned()]),
        ("catalog page, by name", vec!["/api/v1/catalog/entries?sort=name&limit=50".to_owned()]),
        ("servers, 100 on a page", vec!["/api/v1/servers?limit=100".to_owned()]),
        ("servers, 500 on a page", vec!["/api/v1/servers?limit=500".to_owned()]),
    ] {
        rows.push(measure(&mut api, what, &paths, arguments.requests).await?);
    }
    let resident = arguments.pid.map(resident_bytes).transpose()?;
    println!("{}", json!({ "rows": rows, "resident_bytes": resident }));
    Ok(())
}

fn searches() -> Vec<String> {
    WORDS.iter().map(|word| format!("/api/v1/catalog/entries?search={word}")).collect()
}

async fn measure(api: &mut Api, what: &str, paths: &[String], requests: usize) -> anyhow::Result<Value> {
    for path in paths {
        api.expect(Method::GET, path, None).await?;
    }
    let mut took_us = Vec::with_capacity(requests);
    for path in paths.iter().cycle().take(requests) {
        let began = Instant::now();
        api.expect(Method::GET, path, None).await?;
        took_us.push(began.elapsed().as_micros());
    }
    took_us.sort_unstable();
    let at = |share: usize| took_us.get(took_us.len() * share / 100).copied().unwrap_or_default();
    Ok(json!({ "what": what, "requests": requests, "p50_us": at(50), "p99_us": at(99) }))
}

async fn seed_entries(api: &mut Api, entries: usize) -> anyhow::Result<()> {
    let address = serve_entries(entries).await?;
    let source = json!({ "name": "bench", "kind": "file", "url": format!("http://{address}/servers.json") });
    match api.send(Method::POST, "/api/v1/catalog/sources", Some(&source)).await? {
        (StatusCode::CONFLICT, _) => return Ok(()),
        (status, body) => ensure!(status.is_success(), "adding a source: {status} {body}"),
    }
    api.expect(Method::POST, "/api/v1/catalog/sources/bench/sync", Some(&json!({}))).await?;
    let until = Instant::now() + SEED_LIMIT;
    loop {
        let sources = api.expect(Method::GET, "/api/v1/catalog/sources", None).await?;
        let bench = sources["items"].as_array().and_then(|all| all.iter().find(|it| it["name"] == "bench").cloned());
        let bench = bench.context("the source is gone")?;
        match bench["sync_state"].as_str() {
            Some("failed") => bail!("the sync failed: {bench}"),
            Some("done") if bench["entries"] == entries => return Ok(()),
            _ if Instant::now() > until => bail!("the sync takes too long: {bench}"),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn seed_servers(api: &mut Api, servers: usize) -> anyhow::Result<()> {
    for number in 0..servers {
        let body = json!({
            "name": format!("bench-{number}"),
            "entry": "io.github.modelcontextprotocol/server-everything",
            "start": false,
        });
        let (status, answer) = api.send(Method::POST, "/api/v1/servers", Some(&body)).await?;
        ensure!(status.is_success() || status == StatusCode::CONFLICT, "creating a server: {status} {answer}");
    }
    Ok(())
}

/// Serves a catalog file with generated entries, as long as this process runs.
async fn serve_entries(entries: usize) -> anyhow::Result<std::net::SocketAddr> {
    let servers: Vec<Value> = (0..entries).map(entry).collect();
    let body = Bytes::from(json!({ "servers": servers }).to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = body.clone();
            let answer = service_fn(move |_| {
                let body = body.clone();
                async move { Response::builder().header(CONTENT_TYPE, "application/json").body(Full::new(body)) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(address)
}

fn entry(number: usize) -> Value {
    let word = |step: usize| WORDS[(number / step) % WORDS.len()];
    json!({
        "name": format!("bench.example/{}-{}-{number}", word(1), word(20)),
        "title": format!("{} {}", word(1), word(400)),
        "description": format!("Works with {} and {} for teams that need {}.", word(1), word(20), word(400)),
        "version": "1.0.0",
        "packages": [{
            "registryType": "npm",
            "identifier": format!("@bench/{}-{number}", word(1)),
            "version": "1.0.0",
            "transport": { "type": "stdio" },
        }],
    })
}

/// One connection to the API.
pub(crate) struct Api {
    connection: SendRequest<Full<Bytes>>,
    authority: Authority,
    host: HeaderValue,
    key: HeaderValue,
}

impl Api {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        let uri: Uri = target.url.parse().context("--url")?;
        let authority = uri.authority().context("--url has no host")?.clone();
        let key = std::fs::read_to_string(&target.key_file).context("--key-file")?;
        let key = HeaderValue::try_from(format!("Bearer {}", key.trim()))?;
        Ok(Self {
            connection: connect(&authority).await?,
            host: HeaderValue::try_from(authority.as_str())?,
            authority,
            key,
        })
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let (status, body) = self.ask(method, path, body).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Whether a path is found.
    pub(crate) async fn is_there(&mut self, path: &str) -> anyhow::Result<bool> {
        match self.ask(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(false),
            (status, _) => {
                ensure!(status.is_success(), "{path}: {status}");
                Ok(true)
            }
        }
    }

    /// What a path answers, as text.
    pub(crate) async fn text(&mut self, path: &str) -> anyhow::Result<String> {
        let (status, body) = self.ask(Method::GET, path, None).await?;
        ensure!(status.is_success(), "{path}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Bytes)> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.key)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))?;
        // A connection that nobody uses is closed by the server after a while.
        if self.connection.is_closed() || self.connection.ready().await.is_err() {
            self.connection = connect(&self.authority).await?;
        }
        let answer = self.connection.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    pub(crate) async fn expect(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.send(method, path, body).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        Ok(answer)
    }
}

async fn connect(authority: &Authority) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("--pid")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
