//! The edge of every API of ours: request id, span and access log, security headers, panics, compression.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use toolyard_link::trace::{self, Trace};
use tower::ServiceBuilder;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tracing::Instrument;

use super::problem;
use crate::app::expand::NUL;
use crate::{Control, ControlError};

/// The header that carries the request id, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 64;
/// What agents ask, and are answered after a while when nothing changed.
pub(super) const SYNC_PATH: &str = "/dtma/v1/sync";

/// The id of a request, for logs, audit and answers.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Puts the edge around a router.
pub(super) fn around(control: &Control, router: Router<Control>) -> Router {
    // `Router::layer` wraps what is there, so the last of these sees a request first. Compression is outside of
    // the edge proper, which still rewrites the bodies of problems.
    // A page of 500 servers is a megabyte: the best compression would take longer than everything before it.
    router
        .with_state(control.clone())
        .layer(ServiceBuilder::new().layer(CatchPanicLayer::custom(panicked)).layer(Extension(control.clone())))
        .layer(from_fn(pass))
        .layer(CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest).compress_when(is_json))
}

/// Only JSON is worth it, and only JSON may be held back to be compressed: streams must flow.
fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &http::Extensions) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json") || kind.starts_with("application/problem+json")
}

async fn pass(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", request.id = %id.0, http.method = %method, http.path = %path);
    request.extensions_mut().insert(id.clone());
    let trace = Trace::of(request.headers(), &id.0);
    let answer = async move {
        let began = Instant::now();
        let response = match with_nul(request.uri()) {
            Some(part) => ControlError::field(part, NUL).into_response(),
            None => next.run(request).await,
        };
        let response = problem::finish(response, &id.0);
        let (status, took_ms) = (response.status().as_u16(), began.elapsed().as_millis());
        // An agent that has nothing to tell asks again every half minute, for ever.
        if path == SYNC_PATH && status == 200 {
            tracing::debug!(http.status = status, took_ms, "{method} {path} answered {status}");
        } else {
            tracing::info!(http.status = status, took_ms, "{method} {path} answered {status}");
        }
        with_headers(response, &id)
    };
    trace::scope(trace, answer).instrument(span).await
}

/// The part of an address that holds a NUL: the name of the query's parameter, or `path`. Nothing of ours has one in its
/// name or texts, and Postgres takes none.
fn with_nul(uri: &Uri) -> Option<String> {
    const ENCODED: &str = "%00";
    if uri.path().contains(ENCODED) {
        return Some("path".to_owned());
    }
    let pair = uri.query()?.split('&').find(|pair| pair.contains(ENCODED))?;
    let name = pair.split('=').next().filter(|name| !name.is_empty() && !name.contains(ENCODED));
    Some(toolyard_types::name::printable(name.unwrap_or("query")))
}

/// Takes the id that a proxy or client gave when it is harmless, else makes one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let sane = |text: &&str| {
        (8..=LONGEST_REQUEST_ID).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane) {
        Some(given) => RequestId(given.into()),
        None => RequestId(toolyard_types::AuditId::generate().to_string().into()),
    }
}

fn with_headers(mut response: Response, id: &RequestId) -> Response {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A panic is a defect of ours: the caller gets a problem like any other, the log gets its message.
fn panicked(payload: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    ControlError::internal("answering a request (it panicked)")(message.to_owned()).into_response()
}
