//! What a server lists: tools, prompts, resources and templates, kept for a short while.
//!
//! A list is kept whole, every page of it, each item as its raw JSON. It is asked for again when the server says that
//! it changed, and when it is older than [`FRESH`]. A failure is kept shortly too, so that a broken server does not slow
//! every list it is part of; one that did not get to the server says nothing of it and is not kept. A toolset never waits for
//! a server that hangs: it is given the last list that there was, and the server is asked until another one comes: those who
//! listen are told of it. What is kept is copied, and has room on the account of the server's organization: a message would
//! keep the room of who asked.

use crate::naming;
use crate::peer::{Asked, Failure, Peer};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Shared;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use toolyard_mcp::Held;
use toolyard_mcp::era::{self, code};
use toolyard_mcp::json::{self, Object, Span};
use toolyard_types::Code;

/// How long a list is good.
pub(crate) const FRESH: Duration = Duration::from_secs(30);
/// How long a toolset waits for a member's list when it knows an older one, and when it knows none. Counted from when the
/// server was asked, so that of many lists one waits.
const PATIENCE: Duration = Duration::from_millis(250);
pub(crate) const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// The pauses between attempts to get a list that a toolset had to do without.
const PURSUIT_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long fetching a whole list may take.
const LONGEST_FETCH: Duration = Duration::from_secs(60);
/// How long a failure to list is remembered.
const FRESH_FAILURE: Duration = Duration::from_secs(5);
const MAX_PAGES: usize = 100;
const MAX_ITEMS: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl ListKind {
    pub(crate) fn of_method(method: &str) -> Option<Self> {
        match method {
            "tools/list" => Some(Self::Tools),
            "prompts/list" => Some(Self::Prompts),
            "resources/list" => Some(Self::Resources),
            "resources/templates/list" => Some(Self::Templates),
            _ => None,
        }
    }

    /// The lists that a notification says have changed.
    pub(crate) fn changed_by(method: &str) -> &'static [Self] {
        match method {
            "notifications/tools/list_changed" => &[Self::Tools],
            "notifications/prompts/list_changed" => &[Self::Prompts],
            "notifications/resources/list_changed" => &[Self::Resources, Self::Templates],
            _ => &[],
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Tools => 0,
            Self::Prompts => 1,
            Self::Resources => 2,
            Self::Templates => 3,
        }
    }

    /// The notification that says that the list has changed.
    pub(crate) fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources | Self::Templates => "notifications/resources/list_changed",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The result's member that holds the items.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The item's member that names it.
    fn name_key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }
}

/// One listed thing.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its name or URI, as the server gives it.
    pub(crate) name: String,
    /// Its raw JSON.
    pub(crate) raw: Bytes,
    /// Where the name lies in the raw JSON.
    pub(crate) name_span: Span,
}

/// One whole list.
pub(crate) struct List {
    pub(crate) items: Vec<Item>,
    /// The server's own result, when it is one page and every item of it is listed.
    pub(crate) whole_result: Option<Bytes>,
    pub(crate) ttl_ms: u64,
    pub(crate) private: bool,
    /// Room for its pages.
    room: Vec<Held>,
}

type Outcome = Result<Arc<List>, Failure>;

/// The lists of one peer.
#[derive(Default)]
pub(crate) struct Slots([Slot; 4]);

#[derive(Default)]
struct Slot {
    kept: RwLock<Kept>,
    /// The fetch under way, which everybody waits for together.
    fetching: Mutex<Option<Fetching>>,
}

#[derive(Default)]
struct Kept {
    /// What the last fetch gave, until it is known to be old.
    outcome: Option<(Instant, Outcome)>,
    /// The last list that there was, however old it is.
    last: Option<Arc<List>>,
    /// How often the list was said to have changed.
    changes: u64,
    /// Somebody was given another list than the server's, because that took too long.
    gave_old: bool,
}

#[derive(Clone)]
struct Fetching {
    since: tokio::time::Instant,
    outcome: Shared<oneshot::Receiver<Outcome>>,
}

impl Slot {
    fn fresh(&self) -> Option<Outcome> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let (at, outcome) = kept.outcome.as_ref()?;
        let good_for = if outcome.is_ok() { FRESH } else { FRESH_FAILURE };
        (at.elapsed() < good_for).then(|| outcome.clone())
    }

    fn changed(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a fetch gave that began when the list had changed so often. Says whether it lists something else than
    /// before, and whether somebody was given what was before meanwhile.
    fn keep(&self, outcome: &Outcome, changes: u64) -> (bool, bool) {
        let mut kept = self.changed();
        // Said to have changed meanwhile, or the server was not asked at all: the next one asks again.
        let stands = kept.changes == changes && outcome.as_ref().err().is_none_or(|error| error.undelivered.is_none());
        kept.outcome = stands.then(|| (Instant::now(), outcome.clone()));
        let Ok(list) = outcome else { return (false, false) };
        let differs = kept.last.as_ref().is_none_or(|last| {
            last.items.len() != list.items.len() || last.items.iter().zip(&list.items).any(|(a, b)| a.raw != b.raw)
        });
        kept.last = Some(list.clone());
        (differs, std::mem::take(&mut kept.gave_old))
    }
}

impl Slots {
    fn slot(&self, kind: ListKind) -> &Slot {
        &self.0[kind.index()]
    }

    pub(crate) fn invalidate(&self, kind: ListKind) {
        let mut kept = self.slot(kind).changed();
        kept.outcome = None;
        kept.changes = kept.changes.wrapping_add(1);
    }

    pub(crate) fn invalidate_all(&self) {
        [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::Templates]
            .into_iter()
            .for_each(|kind| self.invalidate(kind));
    }
}

/// The peer's list, kept or fetched. Many callers make one fetch.
pub(crate) async fn list(peer: &Arc<Peer>, kind: ListKind) -> Outcome {
    match peer.slots.slot(kind).fresh() {
        Some(outcome) => outcome,
        None => fetching(peer, kind).outcome.await.unwrap_or_else(|_| Err(unusable("listing was given up"))),
    }
}

/// The peer's list for who does not wait for a server that hangs: as it is now when that takes no time, else the last one.
/// What comes later is kept, and those who listen are told that it changed. With `has_other` the caller knows an older one.
pub(crate) async fn list_soon(peer: &Arc<Peer>, kind: ListKind, has_other: bool) -> Outcome {
    let slot = peer.slots.slot(kind);
    let outcome = match slot.fresh() {
        Some(outcome) => outcome,
        None => {
            let patience = {
                let kept = slot.kept.read().unwrap_or_else(PoisonError::into_inner);
                let is_first = kept.outcome.is_none() && kept.last.is_none() && !has_other;
                if is_first { FIRST_PATIENCE } else { PATIENCE }
            };
            let fetching = fetching(peer, kind);
            match tokio::time::timeout_at(fetching.since + patience, fetching.outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(unusable("listing was given up")),
                Err(_) => Err(Failure::timeout(patience)),
            }
        }
    };
    if outcome.is_ok() {
        return outcome;
    }
    let mut kept = slot.changed();
    if !std::mem::replace(&mut kept.gave_old, true) {
        tokio::spawn(pursue(Arc::downgrade(peer), kind));
    }
    kept.last.clone().map_or(outcome, Ok)
}

/// Asks for a list until there is one, because somebody was given another one than the server's.
async fn pursue(peer: Weak<Peer>, kind: ListKind) {
    let mut pause = PURSUIT_PAUSES.0;
    loop {
        let fetched = {
            let Some(peer) = peer.upgrade() else { return };
            let gave_old = peer.slots.slot(kind).kept.read().unwrap_or_else(PoisonError::into_inner).gave_old;
            if !gave_old {
                return;
            }
            fetching(&peer, kind).outcome
        };
        let _ = fetched.await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PURSUIT_PAUSES.1);
    }
}

/// The fetch under way, or a new one. It goes on whoever waits for it.
fn fetching(peer: &Arc<Peer>, kind: ListKind) -> Fetching {
    let slot = peer.slots.slot(kind);
    let mut under_way = slot.fetching.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fetching) = &*under_way {
        return fetching.clone();
    }
    peer.watch();
    let (done, outcome) = oneshot::channel();
    let fetching = Fetching { since: tokio::time::Instant::now(), outcome: outcome.shared() };
    *under_way = Some(fetching.clone());
    let changes = slot.kept.read().unwrap_or_else(PoisonError::into_inner).changes;
    let peer = peer.clone();
    tokio::spawn(async move {
        let fetched = tokio::time::timeout(LONGEST_FETCH, fetch(&peer, kind)).await;
        let outcome = fetched.unwrap_or_else(|_| Err(Failure::timeout(LONGEST_FETCH))).map(Arc::new);
        let slot = peer.slots.slot(kind);
        let (differs, gave_old) = slot.keep(&outcome, changes);
        *slot.fetching.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if differs {
            peer.bump_epoch();
        }
        if differs && gave_old {
            peer.announce(kind);
        }
        let _ = done.send(outcome);
    });
    fetching
}

async fn fetch(peer: &Peer, kind: ListKind) -> Result<List, Failure> {
    if let Ok(handshake) = peer.handshake().await
        && kind != ListKind::Tools
        && !handshake.has_capability(kind.capability())
    {
        return Ok(List { ttl_ms: 0, ..Reading::new(kind).list });
    }
    let mut reading = Reading::new(kind);
    let mut params = None;
    for _ in 0..MAX_PAGES {
        let result = match peer.request(kind.method(), params.take()).await {
            Ok(result) => result,
            Err(Asked::Refused(error)) if error_code(&error) == Some(code::METHOD_NOT_FOUND) => break,
            Err(Asked::Refused(_)) => return Err(unusable("it refused to list")),
            Err(Asked::Failed(failure)) => return Err(failure),
        };
        let room = peer.hold(result.len())?;
        match reading.take_page(&Bytes::copy_from_slice(&result), room)? {
            Some(cursor) => params = Some(format!(r#"{{"cursor":{}}}"#, json::quote(&cursor))),
            None => return Ok(reading.list),
        }
    }
    Ok(reading.list)
}

struct Reading {
    kind: ListKind,
    list: List,
    bytes: usize,
    pages: usize,
}

impl Reading {
    fn new(kind: ListKind) -> Self {
        let list = List { items: Vec::new(), whole_result: None, ttl_ms: u64::MAX, private: false, room: Vec::new() };
        Self { kind, list, bytes: 0, pages: 0 }
    }

    /// Takes one page in; gives the cursor of the next.
    fn take_page(&mut self, result: &Bytes, room: Option<Held>) -> Result<Option<String>, Failure> {
        self.list.room.extend(room);
        self.pages += 1;
        self.bytes += result.len();
        let page = era::member(result, self.kind.key()).ok_or_else(|| unusable("its list has no items"))?;
        let spans = json::elements(&page).map_err(|_| unusable("its list is no array"))?;
        let listed = spans.len();
        let before = self.list.items.len();
        self.list.items.extend(spans.into_iter().filter_map(|span| read_item(page.slice(span), self.kind)));
        if self.list.items.len() > MAX_ITEMS || self.bytes > MAX_BYTES {
            return Err(unusable("its list is too long"));
        }
        self.take_caching(result);
        let cursor = era::string_member(result, "nextCursor").filter(|cursor| !cursor.is_empty());
        let whole = self.pages == 1 && cursor.is_none() && self.list.items.len() - before == listed;
        self.list.whole_result = whole.then(|| result.clone());
        Ok(cursor)
    }

    fn take_caching(&mut self, result: &Bytes) {
        let ttl = era::member(result, "ttlMs").and_then(|raw| std::str::from_utf8(&raw).ok()?.parse().ok());
        self.list.ttl_ms = self.list.ttl_ms.min(ttl.unwrap_or(0));
        self.list.private |= era::string_member(result, "cacheScope").as_deref() != Some("public");
    }
}

/// The item, unless its name is missing, endless or hides something.
fn read_item(raw: Bytes, kind: ListKind) -> Option<Item> {
    let object = Object::scan(&raw, 0..raw.len()).ok()?;
    let name_span = object.get(kind.name_key()).ok()??;
    let name = json::string(&raw[name_span.clone()])?.into_owned();
    let listable = match kind {
        ListKind::Tools | ListKind::Prompts => naming::is_listable(&name),
        ListKind::Resources | ListKind::Templates => {
            !name.is_empty() && name.len() <= 4096 && !name.chars().any(toolyard_types::name::is_hidden)
        }
    };
    if !listable {
        tracing::warn!(name = %toolyard_types::name::printable(&name), "a listed name is hostile or too long; it is left out");
        return None;
    }
    Some(Item { name, raw: raw.clone(), name_span })
}

pub(crate) fn error_code(error: &Bytes) -> Option<i64> {
    let raw = era::member(error, "code")?;
    std::str::from_utf8(&raw).ok()?.parse().ok()
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::UpstreamFailed, format!("the server's answer cannot be used: {why}"))
}
