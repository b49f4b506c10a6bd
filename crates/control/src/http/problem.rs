//! Errors as RFC 9457 answers. The one place that knows both our errors and HTTP.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use toolyard_types::{Code, Problem};

use crate::ControlError;

/// Left in an answer's extensions, so that the edge can add the request id and log the cause once.
#[derive(Clone)]
pub(super) struct Answered(pub(super) Arc<ControlError>);

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let mut response = render(&self.to_problem());
        if let Self::RateLimited { retry_after } | Self::Limited { retry_after, .. } = &self {
            let seconds = u64::try_from(retry_after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            let seconds = HeaderValue::from(seconds.max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.code() == Code::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer realm=\"toolyard\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(Answered(Arc::new(self)));
        response
    }
}

/// A problem as an answer.
fn render(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(body(problem));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn body(problem: &Problem) -> Body {
    Body::from(serde_json::to_vec(problem).expect("a problem is text and numbers"))
}

/// Adds the request id to a problem, and logs its cause: the one place where an error is logged.
pub(super) fn finish(mut response: Response, request_id: &str) -> Response {
    let Some(Answered(error)) = response.extensions_mut().remove::<Answered>() else {
        return response;
    };
    if response.status().is_server_error() {
        tracing::error!(error = &*error as &dyn std::error::Error, code = error.code().as_str(), "request failed");
    } else {
        let cause = std::error::Error::source(&*error);
        tracing::debug!(code = error.code().as_str(), detail = %error, cause, "request refused");
    }
    let mut problem = error.to_problem();
    problem.request_id = Some(request_id.to_owned());
    *response.body_mut() = body(&problem);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}
