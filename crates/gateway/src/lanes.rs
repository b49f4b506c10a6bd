//! Bulkheads: how many calls one server, one key and one organization may have under way, so that whoever calls
//! something that hangs fills a part of the gateway and never all of it.
//!
//! A place is taken by raising a counter and given back by dropping it: nothing waits, and what finds no place is
//! refused at once, with `Retry-After`. A key is counted with those that it made, and of the places of a server nobody
//! has more than three quarters, or three times as many as are left, so that others always find some. What only asks a
//! server what it is has places of its own there: whoever fills a server with calls that hang keeps nobody from opening
//! a session.

use dashmap::DashMap;
use std::borrow::Cow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use toolyard_types::access::Actor;
use toolyard_types::snapshot::KeyGrant;
use toolyard_types::{OrganizationId, ServerId};

use crate::Limits;

/// Counters of things that nobody uses are forgotten once there are this many.
const MAX_IDLE: usize = 10_000;
/// How many times as many places of a server one may have as are left.
const TIMES_LEFT: usize = 3;
/// Servers with fewer places do not share them out.
const LEAST_SHARED: usize = 8;
const KEY_STREAMS: &str = "key streams";
const ORGANIZATION_STREAMS: &str = "organization streams";

/// The calls under way, by what is bounded.
pub(crate) struct Lanes {
    servers: Lane<ServerId>,
    /// Lists and handshakes.
    questions: Lane<ServerId>,
    /// Who calls a server.
    callers: Lane<(ServerId, Actor)>,
    keys: Lane<Actor>,
    organizations: Lane<OrganizationId>,
    /// Streams of changes that are open.
    streams: Lane<Actor>,
    streams_of_organizations: Lane<OrganizationId>,
}

/// What has no place left, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    bound: &'static str,
    limit: usize,
}

impl Full {
    pub(crate) fn detail(self) -> Cow<'static, str> {
        let Self { bound, limit } = self;
        let (what, has) = match bound {
            KEY_STREAMS => ("key", "streams open"),
            ORGANIZATION_STREAMS => ("organization", "streams open"),
            calls => (calls, "calls under way"),
        };
        format!("this {what} has {limit} {has}, which is as many as it may have; try again in a moment").into()
    }
}

/// A place for one call; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// How many are taken, with this one.
    fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Lane<K> {
    bound: &'static str,
    limit: usize,
    under_way: DashMap<K, Arc<AtomicUsize>>,
}

impl<K: Eq + Hash> Lane<K> {
    fn new(bound: &'static str, limit: usize) -> Self {
        // There from the start: what is watched for a change is to be seen before the first.
        metrics::counter!("toolyard_calls_refused_total", "bound" => bound).increment(0);
        Self { bound, limit, under_way: DashMap::new() }
    }

    fn enter(&self, key: K) -> Result<Place, Full> {
        let known = self.under_way.get(&key).map(|count| count.clone());
        let count = known.unwrap_or_else(|| self.under_way.entry(key).or_default().clone());
        if count.fetch_add(1, Ordering::AcqRel) < self.limit {
            return Ok(Place(count));
        }
        count.fetch_sub(1, Ordering::AcqRel);
        Err(self.full())
    }

    fn full(&self) -> Full {
        metrics::counter!("toolyard_calls_refused_total", "bound" => self.bound).increment(1);
        Full { bound: self.bound, limit: self.limit }
    }

    /// Forgets what nobody uses. Whoever holds a counter keeps it: only the map's own reference goes.
    fn sweep(&self) {
        if self.under_way.len() > MAX_IDLE {
            self.under_way.retain(|_, count| Arc::strong_count(count) > 1);
        }
    }
}

impl Lanes {
    pub(crate) fn new(limits: Limits) -> Self {
        let (per_key, per_organization) = (limits.calls_per_key, limits.calls_per_organization);
        metrics::describe_counter!(
            "toolyard_calls_refused_total",
            "MCP calls and streams refused because as many as may be were under way, by what bounds them."
        );
        Self {
            servers: Lane::new("server", limits.calls_per_server),
            questions: Lane::new("server list", limits.calls_per_server),
            callers: Lane::new("key at this server", limits.calls_per_server),
            keys: Lane::new("key", per_key),
            organizations: Lane::new("organization", per_organization),
            streams: Lane::new(KEY_STREAMS, per_key),
            streams_of_organizations: Lane::new(ORGANIZATION_STREAMS, per_organization),
        }
    }

    /// A place among the streams of a key and of its organization, of which there are as many as of calls.
    pub(crate) fn of_stream(&self, grant: &KeyGrant) -> Result<[Place; 2], Full> {
        Ok([self.streams.enter(grant.share_of())?, self.streams_of_organizations.enter(grant.organization)?])
    }

    /// A place among the calls of a key and of its organization.
    pub(crate) fn of_caller(&self, grant: &KeyGrant) -> Result<[Place; 2], Full> {
        Ok([self.keys.enter(grant.share_of())?, self.organizations.enter(grant.organization)?])
    }

    /// A place among the calls to a server, and among this caller's to it.
    pub(crate) fn of_server(&self, server: ServerId, grant: &KeyGrant) -> Result<[Place; 2], Full> {
        let own = self.callers.enter((server, grant.share_of()))?;
        let place = self.servers.enter(server)?;
        let left = self.servers.limit.saturating_sub(place.taken());
        if self.servers.limit >= LEAST_SHARED && own.taken() > TIMES_LEFT * left {
            return Err(Full { limit: own.taken() - 1, ..self.callers.full() });
        }
        Ok([own, place])
    }

    /// A place among what only asks a server what it is.
    pub(crate) fn of_question(&self, server: ServerId) -> Result<Place, Full> {
        self.questions.enter(server)
    }

    pub(crate) fn sweep(&self) {
        self.servers.sweep();
        self.questions.sweep();
        self.callers.sweep();
        self.keys.sweep();
        self.organizations.sweep();
        self.streams.sweep();
        self.streams_of_organizations.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolyard_types::access::Role;
    use toolyard_types::{ApiKeyId, Name};

    #[test]
    fn a_place_that_is_given_back_is_there_for_the_next() {
        let lane = Lane::new("server", 2);
        let (first, second) = (lane.enter(1), lane.enter(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(lane.enter(1).err(), Some(Full { bound: "server", limit: 2 }));
        assert!(lane.enter(2).is_ok(), "another server has places of its own");
        drop(first);
        assert!(lane.enter(1).is_ok());
    }

    fn grant(made_by: Option<Actor>) -> KeyGrant {
        KeyGrant {
            id: ApiKeyId::generate(),
            name: "ci".to_owned(),
            organization: OrganizationId::generate(),
            organization_name: Name::new("default").unwrap(),
            role: Role::Developer,
            scope: None,
            expires_at: None,
            member: None,
            share_of: made_by,
        }
    }

    #[test]
    fn one_caller_with_the_keys_it_made_leaves_places_of_a_server_to_others() {
        let lanes = Lanes::new(Limits { calls_per_server: 200, calls_per_key: 400, ..Limits::default() });
        let (server, maker, other) = (ServerId::generate(), grant(None), grant(None));
        let child = grant(Some(maker.actor()));
        let mut held = Vec::new();
        let mut all_of = |grant: &KeyGrant| {
            let before = held.len();
            held.extend(std::iter::from_fn(|| lanes.of_server(server, grant).ok()));
            held.len() - before
        };
        assert_eq!((all_of(&maker), all_of(&child), all_of(&other)), (150, 0, 37));
        drop(held);
        let calls = std::iter::from_fn(|| lanes.of_caller(&maker).ok()).take(400).collect::<Vec<_>>();
        assert_eq!((calls.len(), lanes.of_caller(&child).is_err()), (400, true));
    }

    #[test]
    fn what_is_swept_is_counted_on_by_who_holds_it() {
        let lane = Lane::new("key", 1);
        let held = lane.enter(0_usize).ok();
        for key in 1..=MAX_IDLE {
            drop(lane.enter(key));
        }
        lane.sweep();
        assert_eq!(lane.under_way.len(), 1);
        assert!(lane.enter(0).is_err());
        drop(held);
        assert!(lane.enter(0).is_ok());
    }
}
