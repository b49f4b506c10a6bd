//! The conversation with the control plane: everything observed up, everything desired down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use toolyard_link::stack;
use toolyard_types::Code;
use toolyard_types::agent::{AGENT_PROTOCOL, Observed, SyncRequest, SyncResponse};
use tower::ServiceExt;

use crate::agent::Inner;

/// The control plane holds an unchanged answer for about 25 s.
const TIMEOUT_MS: u64 = 60_000;
const TIMEOUT: Duration = Duration::from_millis(TIMEOUT_MS);
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What just changed often changes again at once; and an answer that is on its way is worth waiting for.
const SETTLE: Duration = Duration::from_millis(20);
/// After so many questions in a row were taken back for newer news, each is left its time: where something
/// changes all the time the control plane must hear of us all the same.
const MAX_TAKEN_BACK: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(1);
const LEAST_PERIOD: Duration = Duration::from_millis(100);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How often a toolbox that was removed asks whether it is so still: the control plane's database may be set back.
pub(crate) const REMOVED_DELAY: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the control plane did not answer in time")]
    Timeout,
    #[error("reach the control plane")]
    Link(#[from] toolyard_link::LinkError),
    #[error("the control plane refused with status {status}: {detail}")]
    Refused { status: StatusCode, code: Option<Code>, detail: String },
    #[error("read the control plane's answer")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("understand the control plane's answer")]
    Parse(#[from] serde_json::Error),
}

impl SyncError {
    fn says_removed(&self) -> bool {
        matches!(self, Self::Refused { code: Some(Code::ToolboxRemoved), .. })
    }
}

/// Speaks to the control plane until the agent ends.
pub(crate) async fn converse(inner: Arc<Inner>) {
    metrics::describe_counter!("toolyard_dtma_sync_failures_total", "Syncs with the control plane that failed.");
    crate::copies::describe_metrics();
    let mut changed = inner.changed.subscribe();
    let (mut failures, mut taken_back) = (0_u32, 0_u32);
    loop {
        changed.borrow_and_update();
        let observed = inner.observed();
        let asked_at = tokio::time::Instant::now();
        let settle = if taken_back < MAX_TAKEN_BACK { SETTLE } else { PATIENCE };
        let answer = tokio::select! {
            answer = sync(&inner, &observed) => answer,
            () = changes(&mut changed, settle) => {
                taken_back = taken_back.saturating_add(1);
                continue;
            }
        };
        taken_back = 0;
        match answer {
            Ok(answer) => {
                if failures > 0 {
                    tracing::info!("the control plane answers again");
                }
                failures = 0;
                inner.reported(&observed);
                take(&inner, answer);
                // A control plane that holds no answer must not make us turn in circles.
                let pause = LEAST_PERIOD.saturating_sub(asked_at.elapsed());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changes(&mut changed, SETTLE) => changed.mark_changed(),
                }
            }
            Err(error) if error.says_removed() => {
                failures = failures.saturating_add(1);
                inner.end_for_removal();
                // Nobody waits to hear of ends any more: what has ended is forgotten.
                inner.reported(&observed);
                tokio::select! {
                    () = tokio::time::sleep(REMOVED_DELAY.mul_f64(rand::random_range(0.5..1.0))) => {}
                    () = changes(&mut changed, PATIENCE) => {}
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 1 {
                    tracing::warn!(error = &error as &dyn std::error::Error, "sync; servers keep running meanwhile");
                }
                metrics::counter!("toolyard_dtma_sync_failures_total").increment(1);
                tokio::time::sleep(delay_after(failures)).await;
            }
        }
    }
}

async fn changes(changed: &mut tokio::sync::watch::Receiver<u64>, settle: Duration) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(settle).await;
}

fn take(inner: &Inner, answer: SyncResponse) {
    inner.toolbox.send_if_modified(|known| known.replace(answer.toolbox) != Some(answer.toolbox));
    inner.link_to(answer.links);
    // Before what is desired: what starts then is kept from there.
    if let Some(listeners) = answer.listeners {
        inner.context.own_ports.hear(listeners);
    }
    if let Some(environment) = &answer.environment {
        inner.hear_environment(environment);
    }
    if let Some(desired) = answer.desired {
        inner.accept(desired);
    }
}

async fn sync(inner: &Inner, observed: &Observed) -> Result<SyncResponse, SyncError> {
    let request = SyncRequest {
        protocol_min: AGENT_PROTOCOL,
        protocol_max: AGENT_PROTOCOL,
        agent_version: inner.version.clone(),
        generation: inner.context.desired().map_or(0, |desired| desired.generation),
        observed: observed.clone(),
    };
    let http = Request::builder()
        .method(Method::POST)
        .uri("/dtma/v1/sync")
        .header(header::CONTENT_TYPE, "application/json")
        .header(stack::DEADLINE, TIMEOUT_MS)
        .body(Bytes::from(serde_json::to_vec(&request)?))
        .expect("method, path and headers are constants");
    // All that is observed goes up and all that is desired comes down: asking twice changes nothing.
    let http = stack::repeatable(http);
    let exchange = async {
        let response = inner.control.clone().oneshot(http).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(SyncError::Read)?;
        let body = body.to_bytes();
        if !status.is_success() {
            let problem = serde_json::from_slice::<toolyard_types::Problem>(&body).ok();
            let (code, detail) = problem.map_or((None, String::new()), |problem| (Some(problem.code), problem.detail));
            return Err(SyncError::Refused { status, code, detail });
        }
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(SyncError::Timeout))
}

/// Grows to five seconds; a random part keeps agents from coming back all at once.
fn delay_after(failures: u32) -> Duration {
    let delay = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_DELAY);
    delay.mul_f64(rand::random_range(0.5..1.0))
}
