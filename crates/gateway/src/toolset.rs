//! Toolsets: many servers behind one URL.
//!
//! A [`View`] is one kind of list of one toolset: the joined items under their exposed names, and the map from
//! an exposed name to the server and the name it has there. Rules:
//! - Tools and prompts are exposed as [`crate::naming`] says, or as the toolset says of a tool. Resources keep the URI the server gave; when two
//!   members list the same URI, the first member in the toolset's order serves it and the other's is left out.
//! - A member whose server fails or hangs costs nobody time: its last known list stands, until it is stopped. With none
//!   known it costs its own items, nothing else.
//! - No list is no knowledge: a name that would be such a member's goes to its server, which is held and answered like a
//!   call to the server itself. Only what must be looked up waits for the list.
//! - A call through a view that is merely old goes on at once while a new view is made; a view made for another
//!   member list or tool selection is never used.

use crate::catalog::{self, FRESH, Item, ListKind};
use crate::naming;
use crate::peer::{Peer, Peers};
use dashmap::DashMap;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toolyard_mcp::json;
use toolyard_types::snapshot::{OrganizationSnapshot, ServerRoute, Target, ToolOverride, ToolsetMember, ToolsetRoute};
use toolyard_types::state::Phase;
use toolyard_types::{Name, ToolsetId};

/// How many views are kept.
const MAX_VIEWS: usize = 10_000;
/// How long a view without the items of a member that may have some is good.
const FRESH_UNTOLD: Duration = Duration::from_secs(1);

/// What an exposed name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) server: Name,
    pub(crate) own: String,
}

/// What a name comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Entry(Entry),
    /// No member has it.
    Nothing,
    /// This member, which has not told what it has, may have it.
    Untold(Name),
}

/// One kind of list of one toolset.
pub(crate) struct View {
    /// Members that have not told what they have, and whether that is expected of them.
    untold: Vec<(ToolsetMember, bool)>,
    entries: HashMap<String, Entry>,
    /// The literal beginnings of URI templates, longest first.
    prefixes: Vec<(String, Name)>,
    /// The joined raw items.
    pub(crate) items: String,
    pub(crate) ttl_ms: u64,
    route: Arc<ToolsetRoute>,
    version: u64,
    epoch: u64,
    made: tokio::time::Instant,
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

    /// What a name that is not listed comes to.
    fn untold(&self, kind: ListKind, exposed: &str) -> Resolved {
        let may_be = |member: &ToolsetMember| match kind {
            ListKind::Tools | ListKind::Prompts => naming::may_be_hash_of(&member.server, exposed),
            ListKind::Resources | ListKind::Templates => true,
        };
        let guessed = self.untold.iter().find_map(|(member, _)| guess(member, kind, exposed));
        let untold = || self.untold.iter().find(|(member, is_expected)| *is_expected && may_be(member));
        match guessed {
            Some(entry) => Resolved::Entry(entry),
            None => untold().map_or(Resolved::Nothing, |(member, _)| Resolved::Untold(member.server.clone())),
        }
    }

    fn is_for(&self, place: &Place<'_>) -> bool {
        self.version == place.version || Arc::ptr_eq(&self.route, place.route) || self.route == *place.route
    }

    fn is_current(&self, place: &Place<'_>, epoch: u64) -> bool {
        let is_whole = !self.untold.iter().any(|(_, is_expected)| *is_expected);
        let good_for = if is_whole { FRESH } else { FRESH_UNTOLD };
        self.version == place.version && self.epoch == epoch && self.made.elapsed() < good_for
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
    pub(crate) async fn resolve(self: &Arc<Self>, place: Place<'_>, kind: ListKind, exposed: &str) -> Resolved {
        let kept = self.views.get(&(place.route.id, kind)).map(|view| view.clone());
        if let Some(view) = kept
            && view.is_for(&place)
            && let Some(entry) = view.entry(exposed)
        {
            if !view.is_current(&place, self.peers.epoch()) && !view.remaking.swap(true, Ordering::AcqRel) {
                self.clone().make_beside(place, kind);
            }
            return Resolved::Entry(entry.clone());
        }
        let view = self.current(place, kind).await;
        view.entry(exposed).cloned().map_or_else(|| view.untold(kind, exposed), Resolved::Entry)
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
        // All at once, and a toolset has few: each that hangs is waited for a little, and no other waits for that.
        let lists = futures_util::future::join_all(asked).await;
        // Read after the lists: fetching them raises it.
        let epoch = self.peers.epoch();
        let (mut making, mut untold) = (Making::default(), Vec::new());
        for (member, list) in members(place).zip(&lists) {
            let Some(list) = list else {
                untold.push((member.0.clone(), may_be_asked(member.1) && is_kept(member.1)));
                continue;
            };
            making.ttl_ms = Some(making.ttl_ms.unwrap_or(u64::MAX).min(list.ttl_ms));
            making.take(member.0, &list.items, kind);
        }
        making.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let view = Arc::new(View {
            untold,
            entries: making.entries,
            prefixes: making.prefixes,
            items: making.items.join(","),
            ttl_ms: making.ttl_ms.unwrap_or(0),
            route: place.route.clone(),
            version: place.version,
            epoch,
            made: tokio::time::Instant::now(),
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
        route: &Arc<ServerRoute>,
        kind: ListKind,
    ) -> Option<Arc<catalog::List>> {
        let memory = self.peers.memory(route.id);
        let last = memory.list(kind);
        // One that only starts may take minutes.
        if may_be_asked(route) && route.target != Target::None {
            let has_other = last.is_some();
            let ask = |peer: Arc<Peer>| async move { catalog::list_soon(&peer, kind, has_other).await };
            // One that is not to be reached is waited for once, by everybody who asks meanwhile.
            let until = match has_other {
                true => tokio::time::Instant::now(),
                false => memory.wanted_since(kind) + catalog::FIRST_PATIENCE,
            };
            match self.peers.ask(|| Some(route.clone()), None, until, ask).await {
                Ok(list) => {
                    memory.keep_list(kind, &list);
                    return Some(list);
                }
                Err(failure) => {
                    let why = failure.detail;
                    tracing::debug!(server.name = %member.server, why, "a member of a toolset does not list now");
                }
            }
        }
        last.filter(|_| is_kept(route))
    }
}

/// Whether a member may answer: one that is known as failed is not asked, unless another is about to take its place.
pub(crate) fn may_be_asked(route: &ServerRoute) -> bool {
    route.phase != Phase::Failed || route.is_coming
}

/// Whether what a member last said stands while it says nothing: until somebody stops it.
pub(crate) fn is_kept(route: &ServerRoute) -> bool {
    route.phase != Phase::Stopped
}

/// What an exposed name stands for when it is one of a member's, whose list is not known.
fn guess(member: &ToolsetMember, kind: ListKind, exposed: &str) -> Option<Entry> {
    let entry = |own: &str| Entry { server: member.server.clone(), own: own.to_owned() };
    let own = naming::plain(&member.server, exposed);
    match kind {
        ListKind::Tools => {
            let is_selected =
                |own: &str| member.tools.as_ref().is_none_or(|tools| tools.iter().any(|tool| tool == own));
            let named = member.overrides.iter().find(|(_, said)| said.name.as_deref() == Some(exposed));
            let is_renamed = |own: &str| member.overrides.get(own).is_some_and(|said| said.name.is_some());
            let own = named.map(|(own, _)| own.as_str()).or(own.filter(|own| !is_renamed(own)));
            own.filter(|own| is_selected(own)).map(entry)
        }
        ListKind::Prompts => own.map(entry),
        ListKind::Resources | ListKind::Templates => None,
    }
}

/// The members whose servers exist, in the toolset's order.
pub(crate) fn members<'a>(place: Place<'a>) -> impl Iterator<Item = (&'a ToolsetMember, &'a Arc<ServerRoute>)> {
    place
        .route
        .members
        .iter()
        .filter_map(move |member| place.organization.servers.get(&member.server).map(|route| (member, route)))
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
