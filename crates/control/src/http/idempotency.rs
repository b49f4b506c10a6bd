//! `Idempotency-Key` on creations: a repeated request gets the first one's answer, and creates nothing again.
//!
//! Every guarded `POST` honours it. The first request with a key leaves a row that says it is under way; its
//! answer is put there, sealed by the vault because an answer may hold a key that is shown only once. A second
//! request with the same key and the same content gets that answer; with other content it is refused; while
//! the first is under way it is told so. A request that failed leaves nothing, so it can be repeated.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use toolyard_types::{Code, Secret};
use tracing::Instrument;

use super::extract;
use crate::auth::token;
use crate::vault::Place;
use crate::{Caller, Control, ControlError, Result};

/// How long an answer is remembered.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);
/// A request that began this long ago and left no answer died with its process.
const STALE: Duration = Duration::from_secs(300);
/// Larger answers are not remembered; no creation has one.
const LARGEST_ANSWER: usize = 256 * 1024;
const LONGEST_KEY: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Runs the handlers, at most once for each idempotency key.
pub(super) async fn run(control: &Control, caller: &Caller, request: Request, next: Next) -> Response {
    match key(&request, caller) {
        Ok(None) => next.run(request).await,
        Ok(Some(key)) => match run_once(control, caller, &key, request, next).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        },
        Err(error) => error.into_response(),
    }
}

/// The key under which the answer is remembered: one client's keys never meet another's.
fn key(request: &Request, caller: &Caller) -> Result<Option<String>> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY).filter(|_| *request.method() == Method::POST) else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    let text = text.ok_or_else(|| {
        ControlError::field("Idempotency-Key", format!("must be 1 to {LONGEST_KEY} visible ASCII characters"))
    })?;
    Ok(Some(token::sha256_hex(&format!("{}\n{text}", caller.actor))))
}

async fn run_once(control: &Control, caller: &Caller, key: &str, request: Request, next: Next) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let body = extract::read_at_most(body, extract::LARGEST_BODY).await?;
    let mut digest = Sha256::new();
    digest.update(format!("{}\n{}\n", parts.method, parts.uri).as_bytes());
    digest.update(&body);
    let hash = token::hex(&digest.finalize());
    if let Some(answer) = begin(control, caller, key, &hash).await? {
        return Ok(answer);
    }
    // The handlers run apart: when the client goes away meanwhile, the row still gets its answer.
    let work = {
        let (control, caller, key) = (control.clone(), caller.clone(), key.to_owned());
        async move {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            remember(&control, &caller, &key, response).await
        }
    };
    match control.spawn_request(work.in_current_span()).await {
        Ok(answer) => answer,
        Err(panic) => {
            forget(control, caller, key).await?;
            Err(ControlError::internal("answering a request with an idempotency key")(panic))
        }
    }
}

/// Notes that the request is under way; an answer means that it must not run.
async fn begin(control: &Control, caller: &Caller, key: &str, hash: &str) -> Result<Option<Response>> {
    let tx = control.store().org(caller.organization).await?;
    let known = tx.begin_idempotent(key, hash, control.clock().now().minus(STALE)).await?;
    tx.commit().await?;
    let Some(known) = known else { return Ok(None) };
    if known.request_hash != hash {
        let detail = "this Idempotency-Key was sent before with another request; use a new key";
        return Err(ControlError::problem(Code::IdempotencyMismatch, detail));
    }
    match known.answer {
        Some((status, sealed)) => replay(control, caller, key, status, &sealed).map(Some),
        None => Err(ControlError::Conflict("a request with this Idempotency-Key is under way".to_owned())),
    }
}

fn replay(control: &Control, caller: &Caller, key: &str, status: u16, sealed: &str) -> Result<Response> {
    let doing = "reading a remembered answer";
    let envelope = STANDARD.decode(sealed).map_err(ControlError::internal(doing))?;
    let subject = subject(key);
    let place = Place { organization: caller.organization, subject: &subject, version: 1 };
    let text = control.vault().unseal(&place, &envelope)?;
    let status = StatusCode::from_u16(status).map_err(ControlError::internal(doing))?;
    let mut response = (status, text.expose().to_owned()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps the answer of a request that succeeded; forgets one that failed.
async fn remember(control: &Control, caller: &Caller, key: &str, response: Response) -> Result<Response> {
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() || !is_json(&parts.headers) {
        forget(control, caller, key).await?;
        return Ok(Response::from_parts(parts, body));
    }
    let bytes = body.collect().await.map_err(ControlError::internal("collecting an answer"))?.to_bytes();
    match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() <= LARGEST_ANSWER => {
            let subject = subject(key);
            let place = Place { organization: caller.organization, subject: &subject, version: 1 };
            let sealed = STANDARD.encode(control.vault().seal(&place, &Secret::new(text)));
            let tx = control.store().org(caller.organization).await?;
            tx.end_idempotent(key, parts.status.as_u16(), &sealed).await?;
            tx.commit().await?;
        }
        _ => forget(control, caller, key).await?,
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

async fn forget(control: &Control, caller: &Caller, key: &str) -> Result<()> {
    let tx = control.store().org(caller.organization).await?;
    tx.forget_idempotent(key).await?;
    Ok(tx.commit().await?)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn subject(key: &str) -> String {
    format!("idempotency/{key}")
}
