//! What servers say of their own accord, to the clients that listen: the GET stream of a legacy session, and
//! `subscriptions/listen` where the server behind is not modern itself.
//!
//! Only changes pass: of lists, and of resources that were subscribed to. A list change of any server behind the
//! URL is one change of the URL's list. The stream ends when a server it follows does, and clients open another; it
//! also ends when its key would not be let in any more.
//!
//! Clients share an instance and so its subscriptions: who unsubscribes hears nothing more, and the server goes on
//! telling the others. It is never told, because other replicas may have clients of their own that listen.

use crate::answer;
use crate::endpoint::{Target, Visit};
use crate::peer::{Peer, RESOURCE_UPDATED};
use crate::session::SessionId;
use crate::toolset;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{SelectAll, StreamExt};
use sha2::{Digest, Sha256};
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;
use toolyard_mcp::era::meta;
use toolyard_mcp::json::{Malformed, Object};
use toolyard_mcp::{Message, envelope};

/// What a modern client can ask to be told, and the notification it gets.
const KINDS: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

/// The GET stream of a legacy session.
pub(crate) fn stream(visit: Visit, session: SessionId) -> Response {
    let core = visit.core.clone();
    let followed = Followed::of(visit);
    answer::events(followed.events(answer::keep_alive(), move |message| {
        let wanted = match message.method() {
            RESOURCE_UPDATED => {
                let uri = message.payload_string("uri").ok().flatten().unwrap_or_default();
                !core.unsubscribed.contains_key(&(session, uri_digest(&uri)))
            }
            method => is_list_change(method),
        };
        wanted.then(|| message.bytes().clone())
    }))
}

/// How a URI is remembered: a server's may be long.
pub(crate) fn uri_digest(uri: &str) -> [u8; 32] {
    Sha256::digest(uri).into()
}

/// The stream of `subscriptions/listen`: the acknowledgement, then changes under the client's id.
pub(crate) fn subscribe(visit: Visit, request: &Message) -> Result<Response, Malformed> {
    let id = request.raw_id().unwrap_or("null").to_owned();
    let params = request.payload_object().ok_or(Malformed)?;
    let asked = params.get("notifications")?.ok_or(Malformed)?;
    let asked = Object::scan(request.bytes(), asked)?;
    let wants = |kind: &str| Ok::<_, Malformed>(asked.get(kind)?.is_some_and(|span| request.text(span) == "true"));
    let mut honoured = Vec::new();
    for (kind, method) in KINDS {
        if wants(kind)? {
            honoured.push((kind, method));
        }
    }
    let filter: Vec<String> = honoured.iter().map(|(kind, _)| format!(r#""{kind}":true"#)).collect();
    let tag = format!(r#""_meta":{{"{}":{id}}}"#, meta::SUBSCRIPTION_ID);
    let acknowledged = envelope::notification(
        "notifications/subscriptions/acknowledged",
        Some(&format!(r#"{{{tag},"notifications":{{{}}}}}"#, filter.join(","))),
    );
    let followed = Followed::of(visit);
    Ok(answer::events(followed.events(answer::event(&acknowledged), move |message| {
        let (_, method) = *honoured.iter().find(|(_, method)| *method == message.method())?;
        Some(envelope::notification(method, Some(&format!("{{{tag}}}"))))
    })))
}

fn is_list_change(method: &str) -> bool {
    KINDS.iter().any(|(_, changed)| *changed == method)
}

/// Changes of one server; `None` says that the server is no longer there.
type Changes = Pin<Box<dyn futures_util::Stream<Item = Option<Bytes>> + Send>>;

/// The servers a stream follows. It does not hold them: they end when the snapshot drops them.
struct Followed {
    changes: SelectAll<Changes>,
    /// Ready when the stream has to end.
    ended: BoxFuture<'static, ()>,
}

impl Followed {
    fn of(visit: Visit) -> Self {
        let peers: Vec<Arc<Peer>> = match &visit.target {
            Target::Server { route, .. } => visit.core.peers.all(route),
            Target::Toolset { route, .. } => {
                toolset::members(visit.place(route)).flat_map(|(_, route)| visit.core.peers.all(route)).collect()
            }
        };
        let mut all = SelectAll::new();
        for peer in &peers {
            // A client that falls behind misses changes; the next one tells it as much.
            let missed = |change: Result<Bytes, _>| std::future::ready(change.ok().map(Some));
            let changes = BroadcastStream::new(peer.changes()).filter_map(missed);
            let stream: Changes = Box::pin(changes.chain(futures_util::stream::once(std::future::ready(None))));
            all.push(stream);
        }
        Self { changes: all, ended: Box::pin(async move { visit.ended().await }) }
    }

    /// The events: `first`, then what `shown` makes of each change, with comments in between.
    fn events(
        self,
        first: Bytes,
        shown: impl Fn(&Message) -> Option<Bytes> + Send + 'static,
    ) -> impl futures_util::Stream<Item = Bytes> + Send {
        futures_util::stream::unfold((self, Some(first), shown), |(mut followed, first, shown)| async move {
            if let Some(first) = first {
                return Some((first, (followed, None, shown)));
            }
            loop {
                let event = match followed.next().await? {
                    None => answer::keep_alive(),
                    Some(message) => match shown(&message) {
                        Some(message) => answer::event(&message),
                        None => continue,
                    },
                };
                return Some((event, (followed, None, shown)));
            }
        })
    }

    /// The next change, `Some(None)` when it is time for a comment, `None` when a server has gone, we drain, or
    /// the client may not listen any more.
    async fn next(&mut self) -> Option<Option<Message>> {
        loop {
            let changes = async {
                // With nothing to follow there is still a client that expects an open stream.
                if self.changes.is_empty() { std::future::pending().await } else { self.changes.next().await }
            };
            let change = tokio::select! {
                () = &mut self.ended => return None,
                change = tokio::time::timeout(answer::KEEP_ALIVE, changes) => change,
            };
            match change {
                Err(_) => return Some(None),
                Ok(None | Some(None)) => return None,
                Ok(Some(Some(message))) => {
                    if let Ok(message) = Message::parse(message) {
                        return Some(Some(message));
                    }
                }
            }
        }
    }
}
