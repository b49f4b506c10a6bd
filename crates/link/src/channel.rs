//! The one shape of a connection.

use std::convert::Infallible;

use http::{Request, Response};
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
