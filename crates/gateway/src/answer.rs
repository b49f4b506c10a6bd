//! Answers to a client: one JSON object, or a stream of events.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use std::time::Duration;
use toolyard_mcp::envelope;

/// How long a stream may be silent before a comment keeps it open.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One JSON-RPC message as the whole answer.
pub(crate) fn json(status: StatusCode, message: Bytes) -> Response {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON-RPC error message of the gateway's own. Its data, a raw JSON object if any, also tells the request id.
pub(crate) fn error(id: Option<&str>, code: i64, message: &str, data: Option<&str>, request_id: &str) -> Bytes {
    let own = format!(r#""request_id":"{request_id}""#);
    let rest = data.and_then(|data| data.trim().strip_prefix('{')?.strip_suffix('}')).unwrap_or_default();
    let data = if rest.is_empty() { format!("{{{own}}}") } else { format!("{{{rest},{own}}}") };
    envelope::error(id, code, message, Some(&data))
}

/// A stream of events. No proxy may hold it back.
pub(crate) fn events(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures_util::StreamExt;
    let body = Body::from_stream(stream.map(Ok::<_, std::convert::Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, body).into_response()
}

/// One message as an event. Line breaks between tokens become spaces: an event's data is one line here.
pub(crate) fn event(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 24);
    out.put_slice(b"event: message\ndata: ");
    let start = out.len();
    out.put_slice(message);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.put_slice(b"\n\n");
    out.freeze()
}

/// A comment that keeps a silent stream open.
pub(crate) fn keep_alive() -> Bytes {
    Bytes::from_static(b": keep-alive\n\n")
}
