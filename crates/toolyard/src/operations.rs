//! What operators' tools ask: is it alive, is it ready, how does it fare.
//!
//! The public listener tells strangers a status and nothing more, and a key's organization its own metrics. Everything
//! else is on a listener of its own, which has no keys: who reaches it may know all of it.
//!
//! `/readyz` is 200 while calls are served, which is what a load balancer sends here, and 503 otherwise; what else there
//! is to being ready is `/readyz/writes` and `/readyz/control-plane` (see [`toolyard_types::api::system::Readiness`]).
//! From the first signal to stop on all of them are 503.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use toolyard_control::{Control, OrganizationMetrics};
use toolyard_gateway::{Gateway, OrganizationCalls};
use toolyard_types::api::system::Readiness;

/// What these routes need.
#[derive(Clone)]
pub(crate) struct Operations {
    pub(crate) control: Control,
    pub(crate) gateway: Gateway,
    pub(crate) metrics: PrometheusHandle,
    /// Cancelled when no new requests should be sent here.
    pub(crate) leaving: CancellationToken,
}

/// A verdict about a part of being ready, or all that matters to a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ready,
    NotReady,
    Stopping,
}

impl Verdict {
    fn status(self) -> StatusCode {
        if self == Self::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Stopping => "stopping",
        }
    }
}

impl Operations {
    /// None when there is no such part.
    fn verdict(&self, readiness: &Readiness, part: Option<&str>) -> Option<Verdict> {
        let ready = match part {
            None | Some("gateway") => readiness.gateway.ready,
            Some("writes") => readiness.writes.ready,
            Some("control-plane" | "control_plane") => readiness.control_plane.ready,
            Some(_) => return None,
        };
        Some(match ready {
            _ if self.leaving.is_cancelled() => Verdict::Stopping,
            true => Verdict::Ready,
            false => Verdict::NotReady,
        })
    }
}

/// The routes of the public listener.
pub(crate) fn public(operations: Operations) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async |State(it): State<Operations>| status(&it, None)))
        .route(
            "/readyz/{part}",
            get(async |State(it): State<Operations>, Path(part): Path<String>| status(&it, Some(&part))),
        )
        .route("/metrics", get(own_metrics))
        .with_state(operations)
}

/// The routes of the operations listener.
pub(crate) fn all(operations: Operations) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async |State(it): State<Operations>| details(&it, None)))
        .route(
            "/readyz/{part}",
            get(async |State(it): State<Operations>, Path(part): Path<String>| details(&it, Some(&part))),
        )
        .route("/metrics", get(all_metrics))
        .with_state(operations)
}

fn status(operations: &Operations, part: Option<&str>) -> Response {
    match operations.verdict(&operations.control.readiness(), part) {
        Some(verdict) => (verdict.status(), format!("{}\n", verdict.as_str())).into_response(),
        None => (StatusCode::NOT_FOUND, "no such part\n").into_response(),
    }
}

fn details(operations: &Operations, part: Option<&str>) -> Response {
    let readiness = operations.control.readiness_in_detail();
    let Some(verdict) = operations.verdict(&readiness, part) else {
        return (StatusCode::NOT_FOUND, "parts are `gateway`, `writes` and `control-plane`\n").into_response();
    };
    let mut body = json!(readiness);
    body["status"] = verdict.as_str().into();
    (verdict.status(), [(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
}

const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];

async fn all_metrics(State(operations): State<Operations>) -> Response {
    operations.metrics.run_upkeep();
    (TEXT, operations.metrics.render()).into_response()
}

async fn own_metrics(State(operations): State<Operations>, headers: HeaderMap) -> Response {
    match operations.control.organization_metrics(&headers).await {
        Ok(own) => (TEXT, render(&own, &operations.gateway.calls_of(own.organization))).into_response(),
        Err(error) => error.into_response(),
    }
}

/// An organization's metrics in Prometheus' text format.
fn render(own: &OrganizationMetrics, calls: &OrganizationCalls) -> String {
    let mut out = String::new();
    let begin = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    };
    begin(&mut out, "toolyard_build_info", "gauge", "Always 1; the label has the version.");
    let _ = writeln!(out, "toolyard_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    begin(&mut out, "toolyard_servers", "gauge", "Servers by the phase they are in.");
    for (phase, count) in &own.servers {
        let _ = writeln!(out, "toolyard_servers{{phase=\"{}\"}} {count}", phase.as_str());
    }
    begin(&mut out, "toolyard_calls_total", "counter", "MCP calls through the gateway of this replica, by outcome.");
    for (outcome, count) in &calls.outcomes {
        let _ = writeln!(out, "toolyard_calls_total{{outcome=\"{}\"}} {count}", outcome.as_str());
    }
    let name = "toolyard_call_duration_seconds";
    begin(&mut out, name, "histogram", "How long MCP calls take.");
    let count: u64 = calls.outcomes.iter().map(|(_, count)| count).sum();
    for (bound_ms, at_most) in &calls.at_most_ms {
        let (whole, rest) = (bound_ms / 1000, bound_ms % 1000);
        let _ = writeln!(out, "{name}_bucket{{le=\"{whole}.{rest:03}\"}} {at_most}");
    }
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}", calls.took.as_secs_f64());
    out
}
