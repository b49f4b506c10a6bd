//! How many connections there may be: at a listener, and of one peer.
//!
//! Every connection is a file descriptor, and the process needs others: for its database, for servers, for calls to
//! remote ones. So listeners share out three quarters of what the system allows, and the rest is kept back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use toolyard_types::Network;
use toolyard_types::network::peer_of;

/// File descriptors that are asked for, as far as the system lets us.
const DESCRIPTORS: u64 = 65_536;
/// Kept back at least for the database, servers and calls to remote ones.
const KEPT_BACK: u64 = 256;

/// Raises the limit of file descriptors as far as is useful and allowed, and tells how many there are.
pub(crate) fn raise_descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let wanted = DESCRIPTORS.min(hard).max(soft);
    if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        return soft;
    }
    wanted
}

/// How many of the connections that are wished for a listener may have that gets `part` of four of the descriptors.
pub(crate) fn share(descriptors: u64, part: u64, wished: u32) -> usize {
    let left = descriptors.saturating_sub((descriptors / 4).max(KEPT_BACK)).max(64);
    usize::try_from((left * part / 4).min(u64::from(wished))).unwrap_or(usize::MAX)
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The listener has as many as it may.
    Listener,
    /// This peer has as many as one may.
    Peer,
}

impl Full {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener_full",
            Self::Peer => "peer_full",
        }
    }
}

/// The places of one listener.
pub(crate) struct Places {
    name: &'static str,
    most: usize,
    /// Of one peer; 0 for any number.
    per_peer: usize,
    /// Proxies, which bring many people from one address.
    proxies: Vec<Network>,
    taken: Mutex<Taken>,
    open: Gauge,
    refused: [(Full, Counter); 2],
}

#[derive(Default)]
struct Taken {
    all: usize,
    of_peer: HashMap<IpAddr, usize>,
}

/// A connection's place; given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    peer: Option<IpAddr>,
}

impl Places {
    pub(crate) fn new(name: &'static str, most: usize, per_peer: u32, proxies: Vec<Network>) -> Arc<Self> {
        metrics::describe_gauge!("toolyard_connections", "Connections that are open, by listener.");
        metrics::describe_counter!(
            "toolyard_connections_refused_total",
            "Connections that were closed at once, by listener and why."
        );
        let per_peer = usize::try_from(per_peer).unwrap_or(usize::MAX);
        let refused = |full: Full| {
            let labels = [("listener", name), ("why", full.as_str())];
            (full, metrics::counter!("toolyard_connections_refused_total", &labels))
        };
        Arc::new(Self {
            name,
            most,
            per_peer,
            proxies,
            taken: Mutex::default(),
            open: metrics::gauge!("toolyard_connections", "listener" => name),
            refused: [refused(Full::Listener), refused(Full::Peer)],
        })
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// What is full; counted.
    pub(crate) fn take(self: &Arc<Self>, from: IpAddr) -> Result<Place, Full> {
        let counted = self.per_peer > 0 && !self.proxies.iter().any(|proxy| proxy.contains(from));
        let peer = counted.then(|| peer_of(from));
        let taken = self.try_take(peer);
        match taken {
            Ok(()) => {
                self.open.increment(1.0);
                Ok(Place { places: Arc::clone(self), peer })
            }
            Err(full) => {
                if let Some((_, counter)) = self.refused.iter().find(|(why, _)| *why == full) {
                    counter.increment(1);
                }
                tracing::debug!(listener = self.name, peer = %from, why = full.as_str(), "a connection was refused");
                Err(full)
            }
        }
    }

    fn try_take(&self, peer: Option<IpAddr>) -> Result<(), Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return Err(Full::Listener);
        }
        if let Some(peer) = peer {
            let own = taken.of_peer.entry(peer).or_default();
            if *own >= self.per_peer {
                return Err(Full::Peer);
            }
            *own += 1;
        }
        taken.all += 1;
        Ok(())
    }

    fn give_back(&self, peer: Option<IpAddr>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peer
            && let Some(own) = taken.of_peer.get_mut(&peer)
        {
            *own -= 1;
            if *own == 0 {
                taken.of_peer.remove(&peer);
            }
        }
    }
}

impl Place {
    /// From now on the peer is known: it has a place of the listener still, and none of those without a name.
    pub(crate) fn identified(&mut self) {
        self.places.give_back(self.peer.take());
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("listener", &self.places.name).field("peer", &self.peer).finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.peer);
        self.places.taken.lock().unwrap_or_else(PoisonError::into_inner).all -= 1;
        self.places.open.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_a_proxy_as_many_as_the_listener_and_nobody_more() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let places = Places::new("test", 5, 2, vec!["192.0.2.1".parse().expect("a network")]);
        let (one, proxy) = (address("198.51.100.1"), address("192.0.2.1"));
        let mut held: Vec<_> = (0..2).map(|_| places.take(one).expect("a place")).collect();
        assert_eq!(places.take(one).err(), Some(Full::Peer));
        held.extend((0..3).map(|_| places.take(proxy).expect("a place")));
        assert_eq!(places.take(proxy).err(), Some(Full::Listener));
        held[0].identified();
        held.pop();
        held.push(places.take(one).expect("a place"));
        held.clear();
        let taken = places.taken.lock().expect("no panic");
        assert_eq!((taken.all, taken.of_peer.len()), (0, 0));
    }

    #[test]
    fn a_quarter_of_the_descriptors_is_kept_back() {
        assert_eq!(share(1024, 3, 10_000), 576);
        assert_eq!(share(65_536, 3, 10_000), 10_000);
        assert_eq!(share(100, 1, 10_000), 16);
    }
}
