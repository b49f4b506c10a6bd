//! What a request of ours carries so that it can be followed through every part: its id, and the W3C trace context.
//!
//! Whoever answers a request from outside puts its [`Trace`] around the work ([`scope`]); every outgoing call made
//! within carries it on. A call made outside any such work gets an id of its own.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Carries the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the trace context (W3C Trace Context, level 1).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

tokio::task_local! {
    static CURRENT: Trace;
}

/// What follows a request.
#[derive(Clone, Debug)]
pub struct Trace {
    request_id: Arc<str>,
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace of a request from outside that has this id.
    #[must_use]
    pub fn of(headers: &HeaderMap, request_id: &str) -> Self {
        let parent = headers.get(&TRACEPARENT).filter(|value| is_parent(value.as_bytes())).cloned();
        // A state means something only together with a parent.
        let state = parent.as_ref().and_then(|_| headers.get(&TRACESTATE).filter(|value| value.len() <= 512).cloned());
        Self { request_id: request_id.into(), parent, state }
    }

    /// The trace of the work under way, else a new one.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_else(|_| Self {
            request_id: format!("{:016x}", rand::random::<u64>()).into(),
            parent: None,
            state: None,
        })
    }

    /// The request id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(id) = once(&self.request_id) {
            headers.entry(REQUEST_ID).or_insert(id);
        }
        if headers.contains_key(&TRACEPARENT) {
            return;
        }
        match &self.parent {
            Some(parent) => {
                headers.insert(TRACEPARENT, parent.clone());
                if let Some(state) = &self.state {
                    headers.insert(TRACESTATE, state.clone());
                }
            }
            // Not sampled: whoever began the trace decides about that, and nobody did.
            None => {
                let parent = format!("00-{:032x}-{:016x}-00", rand::random::<u128>(), rand::random::<u64>());
                if let Some(parent) = once(&parent) {
                    headers.insert(TRACEPARENT, parent);
                }
            }
        }
    }
}

/// A value that never comes again: "sensitive" has HTTP/2 leave it out of its table of what may.
fn once(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Does `work` under a trace.
pub async fn scope<F: Future>(trace: Trace, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros.
fn is_parent(value: &[u8]) -> bool {
    let parts: Vec<_> = value.split(|byte| *byte == b'-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return false };
    let hex =
        |part: &[u8], length| part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    *version == b"00".as_slice() && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(headers: &HeaderMap) -> HeaderMap {
        let mut out = HeaderMap::new();
        Trace::of(headers, "request-1").write(&mut out);
        out
    }

    #[test]
    fn a_trace_from_outside_is_carried_on_and_a_broken_one_is_replaced() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(given));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        let out = written(&headers);
        assert_eq!(
            (&out[TRACEPARENT], &out[TRACESTATE], &out[REQUEST_ID]),
            (
                &HeaderValue::from_static(given),
                &HeaderValue::from_static("vendor=1"),
                &HeaderValue::from_static("request-1")
            )
        );
        for broken in ["", "00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            headers.insert(TRACEPARENT, HeaderValue::from_static(broken));
            let out = written(&headers);
            assert!(is_parent(out[TRACEPARENT].as_bytes()) && !out.contains_key(TRACESTATE), "{broken:?}");
        }
    }

    #[tokio::test]
    async fn work_under_a_trace_sees_it() {
        let trace = Trace::of(&HeaderMap::new(), "request-2");
        let seen = scope(trace, async { Trace::current().request_id().to_owned() }).await;
        assert_eq!(seen, "request-2");
        assert_ne!(Trace::current().request_id(), "request-2");
    }
}
