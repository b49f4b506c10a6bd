//! Bulkheads: how many calls one server, one key and one organization may have under way, so that whoever calls
//! something that hangs fills a part of the gateway and never all of it.
//!
//! A place is taken by raising a counter and given back by dropping it: nothing waits, and what finds no place is
//! refused at once, with `Retry-After`. What only asks a server what it is has places of its own there: whoever fills a
//! server with calls that hang keeps nobody from opening a session.

use dashmap::DashMap;
use std::borrow::Cow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use toolyard_types::{ApiKeyId, OrganizationId, ServerId};

use crate::Limits;

/// Counters of things that nobody uses are forgotten once there are this many.
const MAX_IDLE: usize = 10_000;

/// The calls under way, by what is bounded.
pub(crate) struct Lanes {
    servers: Lane<ServerId>,
    /// Lists and handshakes.
    questions: Lane<ServerId>,
    keys: Lane<ApiKeyId>,
    organizations: Lane<OrganizationId>,
}

/// What has no place left, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    what: &'static str,
    limit: usize,
}

impl Full {
    pub(crate) fn detail(self) -> Cow<'static, str> {
        let Self { what, limit } = self;
        format!("this {what} has {limit} calls under way, which is as many as it may have; try again in a moment")
            .into()
    }
}

/// A place for one call; given back when dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Lane<K> {
    what: &'static str,
    limit: usize,
    under_way: DashMap<K, Arc<AtomicUsize>>,
}

impl<K: Copy + Eq + Hash> Lane<K> {
    fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, under_way: DashMap::new() }
    }

    fn enter(&self, key: K) -> Result<Place, Full> {
        let known = self.under_way.get(&key).map(|count| count.clone());
        let count = known.unwrap_or_else(|| self.under_way.entry(key).or_default().clone());
        if count.fetch_add(1, Ordering::AcqRel) < self.limit {
            return Ok(Place(count));
        }
        count.fetch_sub(1, Ordering::AcqRel);
        metrics::counter!("toolyard_calls_refused_total", "bound" => self.what).increment(1);
        Err(Full { what: self.what, limit: self.limit })
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
        metrics::describe_counter!(
            "toolyard_calls_refused_total",
            "MCP calls refused because as many as may be were under way, by what bounds them."
        );
        Self {
            servers: Lane::new("server", limits.calls_per_server),
            questions: Lane::new("server list", limits.calls_per_server),
            keys: Lane::new("key", limits.calls_per_key),
            organizations: Lane::new("organization", limits.calls_per_organization),
        }
    }

    /// A place among the calls of a key and of its organization.
    pub(crate) fn of_caller(&self, key: ApiKeyId, organization: OrganizationId) -> Result<[Place; 2], Full> {
        Ok([self.keys.enter(key)?, self.organizations.enter(organization)?])
    }

    /// A place among the calls to a server.
    pub(crate) fn of_server(&self, server: ServerId) -> Result<Place, Full> {
        self.servers.enter(server)
    }

    /// A place among what only asks a server what it is.
    pub(crate) fn of_question(&self, server: ServerId) -> Result<Place, Full> {
        self.questions.enter(server)
    }

    pub(crate) fn sweep(&self) {
        self.servers.sweep();
        self.questions.sweep();
        self.keys.sweep();
        self.organizations.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_back_is_there_for_the_next() {
        let lane = Lane::new("server", 2);
        let (first, second) = (lane.enter(1), lane.enter(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(lane.enter(1).err(), Some(Full { what: "server", limit: 2 }));
        assert!(lane.enter(2).is_ok(), "another server has places of its own");
        drop(first);
        assert!(lane.enter(1).is_ok());
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
