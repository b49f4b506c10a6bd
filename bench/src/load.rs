//! The load generator: rounds of calls, direct and through the gateway in turn.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// What every call sends and every answer must hold.
const MESSAGE: &str = "hello from the bench";
/// Linux counts processor time in hundredths of a second (`USER_HZ`), whatever the kernel's own tick is.
const TICK_US: f64 = 10_000.0;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The echo server's own URL. Left out, only the gateway is measured.
    #[arg(long)]
    direct: Option<Uri>,
    /// The direct URL is at a gateway as well, and needs the key.
    #[arg(long, requires = "direct", requires = "key_file")]
    key_for_direct: bool,
    /// The MCP URL of the same server at the gateway.
    #[arg(long)]
    gateway: Uri,
    /// The tool's name at the gateway: `echo`, or `<server>__echo` at a toolset.
    #[arg(long, default_value = "echo")]
    tool: String,
    /// A file that holds the API key for the gateway.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// The gateway's process, to read its processor time from.
    #[arg(long)]
    gateway_pid: Option<u32>,
    /// How many clients at once, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    clients: Vec<usize>,
    /// Rounds of each kind; direct and gateway alternate.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long a round lasts, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    round_ms: u64,
    /// How long to call before measuring, in milliseconds.
    #[arg(long, default_value_t = 500)]
    warmup_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// One measured way: where, and how a call is written.
#[derive(Clone)]
pub(crate) struct Route {
    uri: Uri,
    key: Option<HeaderValue>,
    tool: String,
    era: Era,
    session: Option<HeaderValue>,
}

#[derive(Serialize)]
struct Report {
    clients: usize,
    era: Era,
    direct: Option<Figures>,
    gateway: Figures,
    /// The gateway's throughput as a share of the direct one.
    share_of_direct: Option<f64>,
    /// Processor time of the gateway's process for one call, in microseconds.
    gateway_cpu_us_per_call: Option<f64>,
}

#[derive(Serialize)]
struct Figures {
    calls: usize,
    calls_per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

/// Measures every number of clients in both eras and prints one JSON document.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for &clients in &arguments.clients {
        for era in [Era::Legacy, Era::Modern] {
            let report = measure(arguments, clients, era).await;
            reports.push(report.with_context(|| format!("while measuring {clients} clients"))?);
        }
    }
    println!("{}", serde_json::to_string_pretty(&reports)?);
    Ok(())
}

async fn measure(arguments: &Arguments, clients: usize, era: Era) -> anyhow::Result<Report> {
    ensure!(clients > 0, "at least one client is needed");
    let key = arguments.key_file.as_deref().map(read_key).transpose()?;
    let gateway = Route::open(arguments.gateway.clone(), key.clone(), arguments.tool.clone(), era).await?;
    let direct = match &arguments.direct {
        Some(uri) => {
            let key = key.clone().filter(|_| arguments.key_for_direct);
            Some(Route::open(uri.clone(), key, "echo".to_owned(), era).await?)
        }
        None => None,
    };
    let warmup = Duration::from_millis(arguments.warmup_ms);
    for route in direct.iter().chain([&gateway]) {
        round(route, clients, warmup).await?;
    }
    let length = Duration::from_millis(arguments.round_ms);
    let (mut direct_took, mut gateway_took) = (Vec::new(), Vec::new());
    let mut cpu_ticks = 0;
    for _ in 0..arguments.rounds {
        if let Some(direct) = &direct {
            direct_took.extend(round(direct, clients, length).await?);
        }
        let before = arguments.gateway_pid.map(cpu_of).transpose()?;
        gateway_took.extend(round(&gateway, clients, length).await?);
        let after = arguments.gateway_pid.map(cpu_of).transpose()?;
        cpu_ticks += after.unwrap_or(0).saturating_sub(before.unwrap_or(0));
    }
    let seconds = length.as_secs_f64() * as_f64(arguments.rounds);
    let direct = direct.map(|_| Figures::of(direct_took, seconds));
    let calls = as_f64(gateway_took.len());
    let gateway = Figures::of(gateway_took, seconds);
    Ok(Report {
        clients,
        era,
        share_of_direct: direct.as_ref().map(|direct| gateway.calls_per_second / direct.calls_per_second),
        gateway_cpu_us_per_call: arguments.gateway_pid.map(|_| f64::from(cpu_ticks) * TICK_US / calls),
        direct,
        gateway,
    })
}

impl Figures {
    fn of(mut took_us: Vec<u64>, seconds: f64) -> Self {
        took_us.sort_unstable();
        let at = |per_cent: usize| took_us.get((took_us.len() * per_cent / 100).min(took_us.len().saturating_sub(1)));
        Self {
            calls: took_us.len(),
            calls_per_second: as_f64(took_us.len()) / seconds,
            p50_us: at(50).copied().unwrap_or(0),
            p99_us: at(99).copied().unwrap_or(0),
        }
    }
}

pub(crate) fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// One round: every client calls as fast as it is answered. Gives how long each call took, in microseconds.
async fn round(route: &Route, clients: usize, length: Duration) -> anyhow::Result<Vec<u64>> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(connect(&route.uri).await?);
    }
    let end = Instant::now() + length;
    let workers: Vec<_> = connections
        .into_iter()
        .map(|connection| {
            let route = route.clone();
            tokio::spawn(async move { work(&route, connection, end).await })
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await??);
    }
    Ok(took)
}

async fn work(route: &Route, mut connection: SendRequest<Full<Bytes>>, end: Instant) -> anyhow::Result<Vec<u64>> {
    let (headers, body) = route.call();
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(took);
        }
        let (status, _, answer) = post(&mut connection, &route.uri, headers.clone(), body.clone()).await?;
        if status != StatusCode::OK || !holds_echo(&answer) {
            bail!("a call was answered {status}: {}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
        }
        took.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// Whether the answer holds what was sent: an error would not.
fn holds_echo(answer: &[u8]) -> bool {
    answer.windows(MESSAGE.len()).any(|window| window == MESSAGE.as_bytes())
}

impl Route {
    /// Gets ready to call: in the legacy era that is a session.
    pub(crate) async fn open(uri: Uri, key: Option<HeaderValue>, tool: String, era: Era) -> anyhow::Result<Self> {
        let mut route = Self { uri, key, tool, era, session: None };
        if era == Era::Legacy {
            let mut connection = connect(&route.uri).await?;
            let initialize = format!(
                r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
            );
            let (status, headers, answer) =
                post(&mut connection, &route.uri, route.headers(), Bytes::from(initialize)).await?;
            ensure!(
                status == StatusCode::OK,
                "`initialize` was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
            route.session = headers.get("mcp-session-id").cloned();
        }
        Ok(route)
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.clone());
        }
        headers
    }

    fn call(&self) -> (HeaderMap, Bytes) {
        self.call_of(&self.tool, &format!(r#"{{"message":"{MESSAGE}"}}"#))
    }

    /// A call of this tool with these arguments (JSON).
    pub(crate) fn call_of(&self, tool: &str, arguments: &str) -> (HeaderMap, Bytes) {
        let mut headers = self.headers();
        let meta = match self.era {
            Era::Legacy => {
                headers.insert("mcp-protocol-version", HeaderValue::from_static(LEGACY));
                String::new()
            }
            Era::Modern => {
                headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
                headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
                let name = HeaderValue::from_str(tool).unwrap_or(HeaderValue::from_static("echo"));
                headers.insert("mcp-name", name);
                format!(
                    r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}},"#
                )
            }
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{meta}"name":"{tool}","arguments":{arguments}}}}}"#
        );
        (headers, Bytes::from(body))
    }
}

pub(crate) async fn connect(uri: &Uri) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let authority = uri.authority().context("a URL needs a host")?;
    ensure!(uri.scheme_str() == Some("http"), "the bench speaks plain http only");
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream =
        tokio::net::TcpStream::connect(&address).await.with_context(|| format!("while connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender; how is seen there.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

pub(crate) async fn post(
    connection: &mut SendRequest<Full<Bytes>>,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.path().parse()?;
    *request.headers_mut() = headers;
    let host = uri.authority().map_or("localhost", http::uri::Authority::as_str);
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host)?);
    connection.ready().await?;
    let (parts, body) = connection.send_request(request).await?.into_parts();
    Ok((parts.status, parts.headers, body.collect().await?.to_bytes()))
}

pub(crate) fn read_key(path: &std::path::Path) -> anyhow::Result<HeaderValue> {
    let key = std::fs::read_to_string(path).with_context(|| format!("while reading {}", path.display()))?;
    Ok(HeaderValue::from_str(&format!("Bearer {}", key.trim()))?)
}

/// User and system time of a process, in ticks.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<u32> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("while reading the gateway's processor time")?;
    parse_cpu(&stat).context("the gateway's processor time cannot be read")
}

/// Fields 14 and 15 of `/proc/<pid>/stat`; the command in field 2 may hold anything, so counting starts after it.
fn parse_cpu(stat: &str) -> Option<u32> {
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_command_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse_cpu(stat), Some(300));
        assert_eq!(parse_cpu(""), None);
    }

    #[test]
    fn percentiles_of_known_times_are_these() {
        let figures = Figures::of((1..=100).rev().collect(), 2.0);
        assert_eq!((figures.calls, figures.p50_us, figures.p99_us), (100, 51, 100));
        assert!((figures.calls_per_second - 50.0).abs() < f64::EPSILON);
        assert_eq!(Figures::of(Vec::new(), 1.0).p99_us, 0);
    }
}
