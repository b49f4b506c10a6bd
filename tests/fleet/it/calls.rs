//! Clients that call without a pause: so many calls a second whatever becomes of each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use toolyard_client::{Client, ToolCall};

use crate::network::Host;
use crate::world::{KEY, Toolyard, wait_until};

/// One call, as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When it was sent, after the first one.
    pub(crate) sent: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    /// The text of the result, or the error.
    pub(crate) outcome: Result<String, String>,
}

/// Calls under way.
pub(crate) struct Load {
    stop: oneshot::Sender<()>,
    ended: std::sync::mpsc::Receiver<Vec<Call>>,
}

impl Load {
    /// Calls tool `who` of a server, `per_second` times a second, each call by itself.
    pub(crate) fn start(toolyard: &Toolyard, server: &str, per_second: u32) -> Self {
        let (client, path) = (toolyard.client.clone(), format!("/mcp/default/servers/{server}"));
        Self::spawn(toolyard, per_second, move || {
            let (client, path) = (client.clone(), path.clone());
            async move { call(&client, &path, "who", json!({})).await }
        })
    }

    /// The same in one session of the era that has them, opened before.
    pub(crate) fn start_in(toolyard: &Toolyard, session: &Session, per_second: u32) -> Self {
        let session = session.clone();
        Self::spawn(toolyard, per_second, move || {
            let session = session.clone();
            async move { session.call("who", json!({})).await }
        })
    }

    fn spawn<F>(toolyard: &Toolyard, per_second: u32, call: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let (end, ended) = std::sync::mpsc::channel();
        toolyard.runtime.spawn(async move {
            let calls = Arc::new(Mutex::new(Vec::new()));
            let mut interval = tokio::time::interval(Duration::from_secs(1) / per_second);
            let mut tasks = tokio::task::JoinSet::new();
            let began = Instant::now();
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    _ = &mut stopped => break,
                }
                let (call, calls) = (call(), Arc::clone(&calls));
                tasks.spawn(async move {
                    let sent = began.elapsed();
                    let (took, outcome) = call.await;
                    calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { sent, took, outcome });
                });
                while tasks.try_join_next().is_some() {}
            }
            while tasks.join_next().await.is_some() {}
            let mut calls = std::mem::take(&mut *calls.lock().unwrap_or_else(PoisonError::into_inner));
            calls.sort_by_key(|call| call.sent);
            let _ = end.send(calls);
        });
        Self { stop, ended }
    }

    /// Goes on for some seconds more, so that what a change broke would be seen, then stops.
    pub(crate) fn settle(self, time: Duration) -> Calls {
        let began = Instant::now();
        wait_until(time + Duration::from_secs(1), "some more calls", || began.elapsed() >= time);
        self.stop()
    }

    /// Sends no more, waits for what is under way, and gives every call.
    pub(crate) fn stop(self) -> Calls {
        let _ = self.stop.send(());
        Calls(self.ended.recv_timeout(Duration::from_secs(120)).expect("the calls end"))
    }
}

/// What became of calls.
pub(crate) struct Calls(pub(crate) Vec<Call>);

impl Calls {
    /// Those of several loads.
    pub(crate) fn of(loads: [Self; 2]) -> Self {
        Self(loads.into_iter().flat_map(|calls| calls.0).collect())
    }

    /// Those that failed.
    pub(crate) fn failed(&self) -> Vec<&Call> {
        self.0.iter().filter(|call| call.outcome.is_err()).collect()
    }

    /// How many each revision answered, by `FLEET_REVISION` of its environment.
    pub(crate) fn by_revision(&self, revision: &str) -> usize {
        self.by(|who| who["revision"] == revision)
    }

    /// How many were answered on a host.
    pub(crate) fn by_host(&self, host: &Host) -> usize {
        let address = host.address().to_string();
        self.by(|who| who["addresses"].as_array().is_some_and(|all| all.iter().any(|it| *it == address.as_str())))
    }

    fn by(&self, answered: impl Fn(&Value) -> bool) -> usize {
        let answers = self.0.iter().filter_map(|call| serde_json::from_str(call.outcome.as_ref().ok()?).ok());
        answers.filter(answered).count()
    }

    /// The longest time one took.
    pub(crate) fn longest(&self) -> Duration {
        self.0.iter().map(|call| call.took).max().unwrap_or_default()
    }
}

/// How long a call took, and the text of its result, or the error.
pub(crate) type Answered = (Duration, Result<String, String>);

/// One call of a tool.
pub(crate) async fn call(client: &Client, path: &str, tool: &str, arguments: Value) -> Answered {
    let call = ToolCall { name: tool.to_owned(), arguments };
    timed(async { client.call_tool(path, &call, |_| {}).await.map_err(|error| error.to_string()) }).await
}

async fn timed(answer: impl Future<Output = Result<Value, String>>) -> Answered {
    let began = Instant::now();
    let outcome = match tokio::time::timeout(Duration::from_secs(60), answer).await {
        Err(_) => Err("no answer in 60 s".to_owned()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(result)) if result["isError"] == true => Err(result.to_string()),
        Ok(Ok(result)) => Ok(result["content"][0]["text"].as_str().unwrap_or_default().to_owned()),
    };
    (began.elapsed(), outcome)
}

/// A session as clients before 2026-07-28 open it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    http: reqwest::Client,
    url: String,
    id: String,
}

impl Session {
    const VERSION: &str = "2025-11-25";

    pub(crate) fn open(toolyard: &Toolyard, server: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/mcp/default/servers/{server}", toolyard.client.base());
        let mut session = Self { http, url, id: String::new() };
        let params = json!({
            "protocolVersion": Self::VERSION,
            "capabilities": {},
            "clientInfo": { "name": "fleet", "version": "1" },
        });
        toolyard.runtime.block_on(async {
            let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
            let answer = session.send(&body).await.expect("an answer");
            let id = answer.headers().get("mcp-session-id").expect("a session");
            session.id = id.to_str().expect("text").to_owned();
            let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
            session.send(&body).await.expect("it is taken");
        });
        session
    }

    /// One call of a tool in it.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answered {
        let params = json!({ "name": tool, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        timed(async {
            let text = self.send(&body).await?.text().await.map_err(|error| error.to_string())?;
            let messages = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line));
            let mut messages = messages.filter_map(|text| serde_json::from_str::<Value>(text).ok());
            match messages.find(|message| message["id"] == 1) {
                Some(message) if message["error"].is_null() => Ok(message["result"].clone()),
                Some(message) => Err(format!("{} ({})", message["error"]["message"], message["error"]["code"])),
                None => Err(format!("no answer in `{text}`")),
            }
        })
        .await
    }

    async fn send(&self, body: &Value) -> Result<reqwest::Response, String> {
        let mut request = self
            .http
            .post(&self.url)
            .bearer_auth(KEY)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", Self::VERSION)
            .json(body);
        if !self.id.is_empty() {
            request = request.header("mcp-session-id", &self.id);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        answer.error_for_status().map_err(|error| error.to_string())
    }
}
