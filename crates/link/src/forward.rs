//! Calls to toolboxes that have no link to this replica, by way of one that has.
//!
//! An agent keeps a link to every replica, so this is for the seconds in which one is missing: a replica that just
//! started, an agent that cannot reach one of them. The way is one hop: a replica passes on only over links of its own.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use toolyard_types::{Timestamp, ToolboxId};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::dial::{DialError, DialOptions, Dialler};
use crate::stack::{self, Peer};
use crate::swap::LinkKind;
use crate::tls::{AgentKey, ReplicaCertificate, TlsError};
use crate::{Body, Channel, LinkError, Links};

/// The path under which a replica takes requests for a toolbox that has a link to it: this, the toolbox's id, and then
/// the request's own path. Without one it only tells whether there is such a link.
pub const FORWARD_PATH: &str = "/dtma/v1/forward";
/// Says of an answer that it comes from a replica without a link, not from the toolbox.
const NO_LINK: HeaderName = HeaderName::from_static("toolyard-no-link");
/// The toolbox has not got the request.
const NOT_SENT: HeaderValue = HeaderValue::from_static("not-sent");
/// It may have got the request: nobody knows.
const BROKE: HeaderValue = HeaderValue::from_static("broke");
/// Says that a request is no call.
const BULK: HeaderName = HeaderName::from_static("toolyard-bulk");
/// Says of an answer that its replica is about to end: the next request is for another one, where one has a link too.
const LEAVING: HeaderName = HeaderName::from_static("toolyard-leaving");
/// The longest request that is passed on, as long as what a link takes.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// How long a replica may take to say whether it has a link.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The other replicas. Cheap to clone.
#[derive(Clone)]
pub struct Replicas(Arc<Inner>);

struct Inner {
    ca: String,
    certificate: Mutex<Option<(AgentKey, Vec<u8>)>>,
    others: RwLock<Vec<(String, Dialler)>>,
    /// Which replica had a link last, by toolbox, and how calls by way of it fared.
    ways: DashMap<ToolboxId, Way>,
}

#[derive(Clone)]
struct Way {
    address: Option<String>,
    peer: Arc<Peer>,
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let others: Vec<_> = self.others().into_iter().map(|(address, _)| address).collect();
        f.debug_struct("Replicas").field("others", &others).finish_non_exhaustive()
    }
}

impl Replicas {
    /// None yet. `ca` is the SHA-256 of the CA's certificate, in hex.
    #[must_use]
    pub fn new(ca: String) -> Self {
        Self(Arc::new(Inner { ca, certificate: Mutex::default(), others: RwLock::default(), ways: DashMap::new() }))
    }

    /// Uses this certificate (DER) for every connection from now on.
    ///
    /// # Errors
    /// When the key and the certificate do not belong together.
    pub fn set_certificate(&self, key: AgentKey, certificate: Vec<u8>) -> Result<(), TlsError> {
        for (_, dialler) in self.others() {
            dialler.set_certificate(&key, &certificate)?;
        }
        *self.0.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, certificate));
        Ok(())
    }

    /// Sets where the others are, as `host:port`. Connections to those that stay are kept.
    ///
    /// # Errors
    /// When one is no address, or the cryptography fails; then nothing changes.
    pub fn set(&self, addresses: &[String]) -> Result<(), DialError> {
        let before = self.others();
        let mut after = Vec::with_capacity(addresses.len());
        for address in addresses {
            let dialler = match before.iter().find(|(known, _)| known == address) {
                Some((_, dialler)) => dialler.clone(),
                None => self.dialler(address)?,
            };
            after.push((address.clone(), dialler));
        }
        *self.0.others.write().unwrap_or_else(PoisonError::into_inner) = after;
        Ok(())
    }

    fn dialler(&self, address: &str) -> Result<Dialler, DialError> {
        let (ca, addresses) = (self.0.ca.clone(), vec![address.to_owned()]);
        let dialler = Dialler::new(DialOptions { addresses, ca, proxy: None, no_proxy: None, offers: None })?;
        if let Some((key, certificate)) = &*self.0.certificate.lock().unwrap_or_else(PoisonError::into_inner) {
            dialler.set_certificate(key, certificate)?;
        }
        Ok(dialler)
    }

    fn others(&self) -> Vec<(String, Dialler)> {
        self.0.others.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A channel to a toolbox by way of whichever replica has a link to it; `None` while there is no other replica.
    pub(crate) fn channel(&self, toolbox: ToolboxId, kind: LinkKind) -> Option<Channel> {
        if self.0.others.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return None;
        }
        let name = || format!("toolbox {toolbox} by way of another replica");
        let peer = self.0.ways.entry(toolbox).or_insert_with(|| Way { address: None, peer: Peer::new(name()) });
        let (peer, replicas) = (peer.peer.clone(), self.clone());
        let channel = BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
            let replicas = replicas.clone();
            async move { replicas.pass_on(toolbox, kind, request).await }
        }));
        // While this way fails at once there may soon be a link of our own, which is another one.
        let no_way = move |error| match error {
            LinkError::Broken(_) => LinkError::NoLink(toolbox.to_string()),
            error => error,
        };
        Some(BoxCloneSyncService::new(stack::through(channel, peer).map_err(no_way)))
    }

    async fn pass_on(
        &self,
        toolbox: ToolboxId,
        kind: LinkKind,
        request: Request<Body>,
    ) -> Result<Response<Body>, LinkError> {
        let (mut parts, body) = request.into_parts();
        // Kept whole: it may be sent to several, one after the other.
        let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
        let body = body.map_err(|error| unreachable("to come", error))?.to_bytes();
        let own = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = format!("{FORWARD_PATH}/{toolbox}{own}");
        parts.uri = path.parse().map_err(|error| unreachable("to come", error))?;
        if kind == LinkKind::Bulk {
            parts.headers.insert(BULK, HeaderValue::from_static("1"));
        }
        let mut tried = Vec::new();
        loop {
            let way = self.way(toolbox, &tried).await;
            let (address, dialler) = way.ok_or_else(|| LinkError::NoLink(toolbox.to_string()))?;
            let answer = dialler.channel().oneshot(Request::from_parts(parts.clone(), Body::from(body.clone()))).await;
            let lost = answer.as_ref().map_or(Some(BROKE), |answer| answer.headers().get(&NO_LINK).cloned());
            let is_leaving = answer.as_ref().is_ok_and(|answer| answer.headers().contains_key(&LEAVING));
            if (lost.is_some() || is_leaving)
                && let Some(mut way) = self.0.ways.get_mut(&toolbox)
            {
                way.address = None;
            }
            match (answer, lost) {
                // Nothing was sent: another one may have a link.
                (Ok(_), Some(why)) if why == NOT_SENT => tried.push(address),
                (Err(LinkError::Unreachable { source, .. }), _) if source.is::<DialError>() => tried.push(address),
                (Ok(_), Some(_)) => return Err(unreachable(&address, "its link to the toolbox broke")),
                (answer, _) => return answer,
            }
        }
    }

    /// The replica that had a link last, or the first one that says that it has one; of those that are about to end only
    /// when there is no other.
    async fn way(&self, toolbox: ToolboxId, tried: &[String]) -> Option<(String, Dialler)> {
        let mut others = self.others();
        others.retain(|(address, _)| !tried.contains(address));
        let known = self.0.ways.get(&toolbox).and_then(|way| way.address.clone());
        if let Some(way) = known.and_then(|known| others.iter().find(|(address, _)| *address == known)) {
            return Some(way.clone());
        }
        let asked = others.into_iter().map(|(address, dialler)| async move {
            let request = Request::builder()
                .method(Method::GET)
                .uri(format!("{FORWARD_PATH}/{toolbox}"))
                .body(Body::empty())
                .expect("method and path are constants and an id");
            let answer = tokio::time::timeout(ASK_TIMEOUT, dialler.channel().oneshot(request)).await;
            let Ok(Ok(answer)) = answer else { return None };
            let is_leaving = answer.headers().contains_key(&LEAVING);
            (answer.status() == StatusCode::NO_CONTENT).then_some((is_leaving, (address, dialler)))
        });
        let there = futures_util::future::join_all(asked).await.into_iter().flatten();
        let (_, found) = there.min_by_key(|(is_leaving, _)| *is_leaving)?;
        if let Some(mut way) = self.0.ways.get_mut(&toolbox) {
            way.address = Some(found.0.clone());
        }
        Some(found)
    }

    /// Forgets what is known of toolboxes for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(ToolboxId) -> bool) {
        self.0.ways.retain(|toolbox, _| keep(*toolbox));
    }
}

fn unreachable(address: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LinkError {
    LinkError::Unreachable { peer: format!("replica {address}"), source: error.into() }
}

impl Links {
    /// Answers another replica's request below [`FORWARD_PATH`], over a link of this one. Once this one is about to end it
    /// says so.
    pub async fn forwarded(
        &self,
        certificate: &ReplicaCertificate,
        now: Timestamp,
        request: Request<Body>,
    ) -> Response<Body> {
        let lasts = request.uri().path().ends_with("/events");
        let mut answer = self.over_own_link(certificate, now, request).await;
        if lasts && answer.status().is_success() {
            // It would go on for as long as this process waits for what is under way.
            let until = self.leaving().clone().cancelled_owned();
            answer = answer.map(|body| Body::from_stream(body.into_data_stream().take_until(until)));
        }
        if self.leaving().is_cancelled() {
            answer.headers_mut().insert(LEAVING, HeaderValue::from_static("1"));
        }
        answer
    }

    async fn over_own_link(
        &self,
        certificate: &ReplicaCertificate,
        now: Timestamp,
        mut request: Request<Body>,
    ) -> Response<Body> {
        if certificate.expires_at <= now {
            return empty(StatusCode::UNAUTHORIZED);
        }
        let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        let rest = path.strip_prefix(FORWARD_PATH).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        let (toolbox, own) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let Ok(toolbox) = toolbox.parse::<ToolboxId>() else { return empty(StatusCode::NOT_FOUND) };
        let bulk = request.headers_mut().remove(&BULK).is_some();
        let kind = if bulk { LinkKind::Bulk } else { LinkKind::Calls };
        let Some(channel) = self.own(toolbox, kind) else { return no_link(NOT_SENT) };
        if own.is_empty() {
            return empty(StatusCode::NO_CONTENT);
        }
        let Ok(uri) = own.parse::<Uri>() else { return empty(StatusCode::BAD_REQUEST) };
        *request.uri_mut() = uri;
        match channel.oneshot(request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, toolbox.id = %toolbox, "passing a call on");
                let sent = !matches!(error, LinkError::NoLink(_) | LinkError::Broken(_));
                no_link(if sent { BROKE } else { NOT_SENT })
            }
        }
    }
}

fn no_link(why: HeaderValue) -> Response<Body> {
    let mut answer = empty(StatusCode::BAD_GATEWAY);
    answer.headers_mut().insert(NO_LINK, why);
    answer
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_process;
    use toolyard_types::{Clock, ReplicaId};

    fn certificate(expires_at: i64) -> ReplicaCertificate {
        ReplicaCertificate { replica: ReplicaId::generate(), expires_at: Timestamp::from_ms(expires_at) }
    }

    async fn ask(links: &Links, certificate: &ReplicaCertificate, path: &str) -> (StatusCode, bool, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = links.forwarded(certificate, Timestamp::from_ms(1_000), request).await;
        let (status, lost) = (answer.status(), answer.headers().contains_key(&NO_LINK));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, lost, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_replica_passes_on_over_its_own_links_and_only_to_replicas_of_now() {
        let links = Links::new(Clock::system());
        let (here, elsewhere) = (ToolboxId::generate(), ToolboxId::generate());
        let echo = |uri: Uri| async move { uri.to_string() };
        links.insert(here, in_process(axum::Router::new().fallback(echo)));
        let good = certificate(2_000);
        let at = |toolbox, rest: &str| format!("{FORWARD_PATH}/{toolbox}{rest}");
        assert_eq!(ask(&links, &good, &at(here, "")).await.0, StatusCode::NO_CONTENT);
        let (status, lost, body) = ask(&links, &good, &at(here, "/v1/instances/x/logs?tail=1")).await;
        assert_eq!((status, lost, body.contains("/v1/instances/x/logs?tail=1")), (StatusCode::OK, false, true));
        assert_eq!(ask(&links, &good, &at(elsewhere, "/v1/x")).await, (StatusCode::BAD_GATEWAY, true, String::new()));
        assert_eq!(ask(&links, &good, &format!("{FORWARD_PATH}/no-id/v1/x")).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&links, &certificate(1_000), &at(here, "/v1/x")).await.0, StatusCode::UNAUTHORIZED);
        let says_leaving = async || {
            let request = Request::get(at(here, "/v1/x")).body(Body::empty()).expect("a request");
            let answer = links.forwarded(&good, Timestamp::from_ms(1_000), request).await;
            (answer.status(), answer.headers().contains_key(&LEAVING))
        };
        assert_eq!(says_leaving().await, (StatusCode::OK, false));
        let stays = ToolboxId::generate();
        let endless =
            async || Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        links.insert(stays, in_process(axum::Router::new().fallback(endless)));
        let path = at(stays, "/v1/instances/x/events");
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let events = links.forwarded(&good, Timestamp::from_ms(1_000), request).await;
        links.leave();
        assert!(events.into_body().collect().await.expect("a body").to_bytes().is_empty(), "it ends");
        assert_eq!(says_leaving().await, (StatusCode::OK, true), "it still passes on what comes");
    }

    #[tokio::test]
    async fn without_another_replica_there_is_no_other_way() {
        let replicas = Replicas::new(String::new());
        assert!(replicas.channel(ToolboxId::generate(), LinkKind::Calls).is_none());
        assert!(replicas.set(&["no address".into()]).is_err());
    }
}
