//! The one shape of a connection.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::watch;
use tower::util::{BoxCloneSyncService, ServiceExt};

/// The body of requests and answers.
pub type Body = axum::body::Body;

/// Why a request on a channel got no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side cannot be reached.
    #[error("cannot reach {peer}")]
    Unreachable {
        /// Who, for a person.
        peer: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The peer did not begin to answer in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// Several calls in a row got no answer, so this one was not made.
    #[error("{0} did not answer several calls in a row; calls fail at once until it does again")]
    Broken(String),
    /// No connection to the toolbox exists now.
    #[error("no link to toolbox `{0}`")]
    NoLink(String),
}

/// A connection to a part of Toolyard. Cheap to clone; answers may be awaited concurrently.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, LinkError>;

/// A channel to a Router in the same process: no socket, no copy.
pub fn in_process(router: axum::Router) -> Channel {
    BoxCloneSyncService::new(router.into_service().map_err(|never: Infallible| match never {}))
}

/// A channel to a part that is still starting: requests wait until it is there, at most `patience`.
pub fn once_attached(attached: watch::Receiver<Option<Channel>>, patience: Duration, peer: &'static str) -> Channel {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let mut attached = attached.clone();
        async move {
            let there = tokio::time::timeout(patience, attached.wait_for(Option::is_some)).await;
            let channel = there.ok().and_then(Result::ok).and_then(|channel| channel.clone());
            match channel {
                Some(channel) => channel.oneshot(request).await,
                None => Err(LinkError::NoLink(peer.to_owned())),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_request_to_a_part_that_is_still_starting_waits_for_it() {
        let (attach, attached) = watch::channel(None);
        let channel = once_attached(attached, Duration::from_secs(10), "it");
        let asked = tokio::spawn(channel.oneshot(Request::get("/").body(Body::empty()).expect("a request")));
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "there" }));
        attach.send(Some(in_process(router))).expect("heard");
        let answer = asked.await.expect("no panic").expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(&body[..], b"there");
    }

    #[tokio::test]
    async fn a_part_that_never_starts_is_an_error_when_patience_ends() {
        let (_attach, attached) = watch::channel(None);
        let channel = once_attached(attached, Duration::from_millis(10), "it");
        let answer = channel.oneshot(Request::get("/").body(Body::empty()).expect("a request")).await;
        assert!(matches!(answer, Err(LinkError::NoLink(_))));
    }
}
