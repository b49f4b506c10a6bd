//! Clients that call without a pause: so many calls a second whatever becomes of each.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use toolyard_client::{Client, ToolCall};

use crate::network::Host;
use crate::world::{Toolyard, wait_until};

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
    /// Calls tool `who` of a server, `per_second` times a second.
    pub(crate) fn start(toolyard: &Toolyard, server: &str, per_second: u32) -> Self {
        let (client, path) = (toolyard.client.clone(), format!("/mcp/default/servers/{server}"));
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
                let (client, path, calls) = (client.clone(), path.clone(), Arc::clone(&calls));
                tasks.spawn(async move {
                    let sent = began.elapsed();
                    let (took, outcome) = call(&client, &path, "who", json!({})).await;
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

/// One call of a tool: how long it took, and the text of its result.
pub(crate) async fn call(
    client: &Client,
    path: &str,
    tool: &str,
    arguments: Value,
) -> (Duration, Result<String, String>) {
    let began = Instant::now();
    let call = ToolCall { name: tool.to_owned(), arguments };
    let answer = tokio::time::timeout(Duration::from_secs(60), client.call_tool(path, &call, |_| {})).await;
    let outcome = match answer {
        Err(_) => Err("no answer in 60 s".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(result)) if result["isError"] == true => Err(result.to_string()),
        Ok(Ok(result)) => Ok(result["content"][0]["text"].as_str().unwrap_or_default().to_owned()),
    };
    (began.elapsed(), outcome)
}
