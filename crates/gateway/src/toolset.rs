//! Toolsets: many servers behind one URL.
//!
//! A [`View`] is one kind of list of one toolset: the joined items under their exposed names, and the map from
//! an exposed name to the server and the name it has there. Rules:
//! - Tools and prompts are exposed as [`crate::naming`] says, or as the toolset says of a tool. Resources keep the URI the server gave; when two
//!   members list the same URI, the first member in the toolset's order serves it and the other's is left out.
//! - A member whose server fails or hangs costs nobody time: its last known list stands, until it is stopped. With none
//!   known it costs its own items, nothing else.
//! - A call through a view that is merely old goes on at once while a new view is made; a view made for another
//!   member list or tool selection is never used.

use crate::catalog::{self, FRESH, Item, ListKind};
use crate::naming;
use crate::peer::Peers;
use dashmap::DashMap;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use toolyard_mcp::json;
use toolyard_types::snapshot::{OrganizationSnapshot, ServerRoute, ToolOverride, ToolsetMember, ToolsetRoute};
use toolyard_types::state::Phase;
use toolyard_types::{Name, ToolsetId};

/// How many members are asked at once.
const MEMBERS_AT_ONCE: usize = 32;
/// How many views are kept.
const MAX_VIEWS: usize = 10_000;

/// What an exposed name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) server: Name,
    pub(crate) own: String,
}

/// One kind of list of one toolset.
pub(crate) struct View {
    entries: HashMap<String, Entry>,
    /// The literal beginnings of URI templates, longest first.
    prefixes: Vec<(String, Name)>,
    /// The joined raw items.
    pub(crate) items: String,
    pub(crate) ttl_ms: u64,
    route: Arc<ToolsetRoute>,
    version: u64,
    epoch: u64,
    made: Instant,
    remaking: AtomicBool,
}

impl View {
    pub(crate) fn entry(&self, exposed: &str) -> Option<&Entry> {
        self.entries.get(exposed)
    }

    /// The server whose template the URI begins like.
    pub(crate) fn server_of_prefix(&self, uri: &str) -> Option<&Name> {
        self.prefixes.iter().find(|(prefix, _)| uri.starts_with(prefix)).map(|(_, server)| server)
    }

    fn is_for(&self, place: &Place<'_>) -> bool {
        self.version == place.version || Arc::ptr_eq(&self.route, place.route) || self.route == *place.route
    }

    fn is_current(&self, place: &Place<'_>, epoch: u64) -> bool {
        self.version == place.version && self.epoch == epoch && self.made.elapsed() < FRESH
    }
}

/// One toolset as one snapshot has it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) organization: &'a Arc<OrganizationSnapshot>,
    pub(crate) route: &'a Arc<ToolsetRoute>,
    pub(crate) version: u64,
}

/// The views in use.
pub(crate) struct Views {
    peers: Arc<Peers>,
    views: DashMap<(ToolsetId, ListKind), Arc<View>>,
}

impl Views {
    pub(crate) fn new(peers: Arc<Peers>) -> Arc<Self> {
        Arc::new(Self { peers, views: DashMap::new() })
    }

    /// The view as it is now.
    pub(crate) async fn current(&self, place: Place<'_>, kind: ListKind) -> Arc<View> {
        let key = (place.route.id, kind);
        if let Some(view) = self.views.get(&key)
            && view.is_current(&place, self.peers.epoch())
        {
            return view.clone();
        }
        self.make(place, kind).await
    }

    /// What `exposed` stands for. A name an old view knows is answered from it while a new one is made.
    pub(crate) async fn resolve(self: &Arc<Self>, place: Place<'_>, kind: ListKind, exposed: &str) -> Option<Entry> {
        let kept = self.views.get(&(place.route.id, kind)).map(|view| view.clone());
        if let Some(view) = kept
            && view.is_for(&place)
            && let Some(entry) = view.entry(exposed)
        {
            if !view.is_current(&place, self.peers.epoch()) && !view.remaking.swap(true, Ordering::AcqRel) {
                self.clone().make_beside(place, kind);
            }
            return Some(entry.clone());
        }
        self.current(place, kind).await.entry(exposed).cloned()
    }

    fn make_beside(self: Arc<Self>, place: Place<'_>, kind: ListKind) {
        let (organization, route, version) = (place.organization.clone(), place.route.clone(), place.version);
        tokio::spawn(async move {
            self.make(Place { organization: &organization, route: &route, version }, kind).await;
        });
    }

    async fn make(&self, place: Place<'_>, kind: ListKind) -> Arc<View> {
        let mut asked = Vec::new();
        for (member, route) in members(place) {
            asked.push(self.member_items(member, route, kind));
        }
        let lists: Vec<_> = futures_util::stream::iter(asked).buffered(MEMBERS_AT_ONCE).collect().await;
        // Read after the lists: fetching them raises it.
        let epoch = self.peers.epoch();
        let mut making = Making::default();
        for (member, list) in members(place).zip(&lists) {
            let Some(list) = list else { continue };
            making.ttl_ms = Some(making.ttl_ms.unwrap_or(u64::MAX).min(list.ttl_ms));
            making.take(member.0, &list.items, kind);
        }
        making.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let view = Arc::new(View {
            entries: making.entries,
            prefixes: making.prefixes,
            items: making.items.join(","),
            ttl_ms: making.ttl_ms.unwrap_or(0),
            route: place.route.clone(),
            version: place.version,
            epoch,
            made: Instant::now(),
            remaking: AtomicBool::new(false),
        });
        if self.views.len() >= MAX_VIEWS {
            self.views.clear();
        }
        self.views.insert((place.route.id, kind), view.clone());
        view
    }

    async fn member_items(
        &self,
        member: &ToolsetMember,
        route: &ServerRoute,
        kind: ListKind,
    ) -> Option<Arc<catalog::List>> {
        let memory = self.peers.memory(route.id);
        let last = memory.list(kind);
        let listed = match may_be_asked(route).then(|| self.peers.first(route)) {
            Some(Ok(peer)) => catalog::list_soon(&peer, kind, last.is_some()).await,
            Some(Err(_)) | None => None,
        };
        match listed {
            Some(list) => {
                memory.keep_list(kind, &list);
                Some(list)
            }
            None => {
                tracing::debug!(server.name = %member.server, "a member of a toolset does not list now");
                last.filter(|_| is_kept(route))
            }
        }
    }
}

/// Whether a member may answer: one that is known as failed is not asked.
pub(crate) fn may_be_asked(route: &ServerRoute) -> bool {
    route.phase != Phase::Failed
}

/// Whether what a member last said stands while it says nothing: until somebody stops it.
pub(crate) fn is_kept(route: &ServerRoute) -> bool {
    route.phase != Phase::Stopped
}

/// The members whose servers exist, in the toolset's order.
pub(crate) fn members<'a>(place: Place<'a>) -> impl Iterator<Item = (&'a ToolsetMember, &'a ServerRoute)> {
    place
        .route
        .members
        .iter()
        .filter_map(move |member| place.organization.servers.get(&member.server).map(|route| (member, route.as_ref())))
}

#[derive(Default)]
struct Making {
    entries: HashMap<String, Entry>,
    prefixes: Vec<(String, Name)>,
    items: Vec<String>,
    ttl_ms: Option<u64>,
}

impl Making {
    fn take(&mut self, member: &ToolsetMember, items: &[Item], kind: ListKind) {
        match kind {
            ListKind::Tools | ListKind::Prompts => self.take_named(member, items, kind),
            ListKind::Resources => {
                items.iter().for_each(|item| self.add(&member.server, item, item.name.clone(), None))
            }
            ListKind::Templates => {
                for item in items {
                    let literal = item.name.split('{').next().unwrap_or_default();
                    if !literal.is_empty() {
                        self.prefixes.push((literal.to_owned(), member.server.clone()));
                    }
                    self.add(&member.server, item, item.name.clone(), None);
                }
            }
        }
    }

    /// Plain names first, so that no crafted name takes the place of one.
    fn take_named(&mut self, member: &ToolsetMember, items: &[Item], kind: ListKind) {
        let selected = |item: &&Item| match (&member.tools, kind) {
            (Some(tools), ListKind::Tools) => tools.contains(&item.name),
            _ => true,
        };
        let said = |item: &Item| member.overrides.get(&item.name).filter(|_| kind == ListKind::Tools);
        // A name that was given holds no `__`, so that none of the others can be the same.
        let name = |item: &Item| match said(item).and_then(|said| said.name.clone()) {
            Some(name) => (name, true),
            None => naming::expose(&member.server, &item.name),
        };
        let exposed: Vec<_> = items.iter().filter(selected).map(|item| (item, name(item))).collect();
        for plain_round in [true, false] {
            for (item, (name, plain)) in &exposed {
                if *plain == plain_round {
                    self.add(&member.server, item, name.clone(), Some(said(item)));
                }
            }
        }
    }

    /// Adds an item; `named` for those whose name is not the server's, with what is said of it instead.
    fn add(&mut self, server: &Name, item: &Item, exposed: String, named: Option<Option<&ToolOverride>>) {
        if self.entries.contains_key(&exposed) {
            tracing::warn!(server = %server, name = %toolyard_types::name::printable(&item.name), "a name is listed twice; the first one serves");
            return;
        }
        let raw = String::from_utf8_lossy(&item.raw);
        self.items.push(match named {
            Some(said) => {
                let (before, after) = (&raw[..item.name_span.start], &raw[item.name_span.end..]);
                let named = format!("{before}{}{after}", json::quote(&exposed));
                match said.and_then(|said| said.description.as_deref()) {
                    Some(description) => described(&named, description).unwrap_or(named),
                    None => named,
                }
            }
            None => raw.into_owned(),
        });
        self.entries.insert(exposed, Entry { server: server.clone(), own: item.name.clone() });
    }
}

/// The item with another description; all else stays as its server wrote it.
fn described(item: &str, description: &str) -> Option<String> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(item).ok()?;
    fields.insert("description".to_owned(), RawValue::from_string(json::quote(description)).ok()?);
    serde_json::to_string(&fields).ok()
}
