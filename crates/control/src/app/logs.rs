//! Logs are at the agent that runs the instance; the control plane passes them on.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use toolyard_link::Channel;
use toolyard_types::{Code, Problem};
use tower::ServiceExt;

use crate::{ControlError, Result};

/// How long an agent may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest problem that is read from an agent.
const LARGEST_PROBLEM: usize = 64 * 1024;

/// Opens a log at an agent; the body goes on as long as the agent writes.
///
/// # Errors
/// `not_found` when the agent does not know the instance any more, `upstream_failed` when it does not answer.
pub(crate) async fn open(channel: Channel, path: &str) -> Result<Body> {
    let request = Request::get(path).body(Body::empty()).map_err(ControlError::internal("asking for a log"))?;
    let failed = |detail: &str| ControlError::problem(Code::UpstreamFailed, detail);
    let response = match tokio::time::timeout(PATIENCE, channel.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an agent could not be asked for a log");
            return Err(failed("the toolbox's agent cannot be reached"));
        }
        Err(_) => return Err(ControlError::problem(Code::UpstreamTimeout, "the toolbox's agent did not answer")),
    };
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    if response.status() == StatusCode::NOT_FOUND {
        return Err(ControlError::NotFound("the instance's log".to_owned()));
    }
    let body = Limited::new(response.into_body(), LARGEST_PROBLEM).collect().await.ok();
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    Err(failed(&problem.map_or_else(|| "the toolbox's agent has no log".to_owned(), |problem| problem.detail)))
}
