//! What a server lists: tools, prompts, resources and templates, kept for a short while.
//!
//! A list is kept whole, every page of it, each item as its raw JSON. It is dropped when the server says that
//! it changed, when it is older than [`FRESH`], and with its peer when the instance changes. A failure is kept
//! shortly too, so that a broken server does not slow every list it is part of.

use crate::naming;
use crate::peer::{Asked, Failure, Peer};
use bytes::Bytes;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use toolyard_mcp::era::{self, code};
use toolyard_mcp::json::{self, Object, Span};
use toolyard_types::Code;

/// How long a list is good.
pub(crate) const FRESH: Duration = Duration::from_secs(30);
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
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Item>,
    /// The server's own result, when it is one page and every item of it is listed.
    pub(crate) whole_result: Option<Bytes>,
    pub(crate) ttl_ms: u64,
    pub(crate) private: bool,
}

type Outcome = Result<Arc<List>, Failure>;

/// The lists of one peer.
#[derive(Default)]
pub(crate) struct Slots([Slot; 4]);

#[derive(Default)]
struct Slot {
    kept: RwLock<Option<(Instant, Outcome)>>,
    fetching: tokio::sync::Mutex<()>,
}

impl Slot {
    fn fresh(&self) -> Option<Outcome> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let (at, outcome) = kept.as_ref()?;
        let good_for = if outcome.is_ok() { FRESH } else { FRESH_FAILURE };
        (at.elapsed() < good_for).then(|| outcome.clone())
    }

    /// Whether `outcome` lists something else than what was kept last.
    fn differs(&self, outcome: &Outcome) -> bool {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        match (kept.as_ref().map(|(_, kept)| kept), outcome) {
            (Some(Ok(kept)), Ok(list)) => {
                kept.items.len() != list.items.len() || kept.items.iter().zip(&list.items).any(|(a, b)| a.raw != b.raw)
            }
            (Some(Err(_)), Err(_)) => false,
            _ => true,
        }
    }

    fn keep(&self, outcome: Option<Outcome>) {
        let kept = outcome.map(|outcome| (Instant::now(), outcome));
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

impl Slots {
    fn slot(&self, kind: ListKind) -> &Slot {
        match kind {
            ListKind::Tools => &self.0[0],
            ListKind::Prompts => &self.0[1],
            ListKind::Resources => &self.0[2],
            ListKind::Templates => &self.0[3],
        }
    }

    pub(crate) fn invalidate(&self, kind: ListKind) {
        self.slot(kind).keep(None);
    }

    pub(crate) fn invalidate_all(&self) {
        self.0.iter().for_each(|slot| slot.keep(None));
    }
}

/// The peer's list, kept or fetched. Many callers make one fetch.
pub(crate) async fn list(peer: &Arc<Peer>, kind: ListKind) -> Outcome {
    let slot = peer.slots.slot(kind);
    if let Some(outcome) = slot.fresh() {
        return outcome;
    }
    let _fetching = slot.fetching.lock().await;
    if let Some(outcome) = slot.fresh() {
        return outcome;
    }
    peer.watch();
    let outcome = fetch(peer, kind).await.map(Arc::new);
    if slot.differs(&outcome) {
        peer.bump_epoch();
    }
    slot.keep(Some(outcome.clone()));
    outcome
}

async fn fetch(peer: &Peer, kind: ListKind) -> Result<List, Failure> {
    if let Ok(handshake) = peer.handshake().await
        && kind != ListKind::Tools
        && !handshake.has_capability(kind.capability())
    {
        return Ok(List { items: Vec::new(), whole_result: None, ttl_ms: 0, private: false });
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
        match reading.take_page(&result)? {
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
        let list = List { items: Vec::new(), whole_result: None, ttl_ms: u64::MAX, private: false };
        Self { kind, list, bytes: 0, pages: 0 }
    }

    /// Takes one page in; gives the cursor of the next.
    fn take_page(&mut self, result: &Bytes) -> Result<Option<String>, Failure> {
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
