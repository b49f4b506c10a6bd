//! Which instance takes a call.
//!
//! Of several, the one with the fewest calls under way, in turn where they are equal, among those whose toolbox can
//! be reached. A canary takes its part of the calls by counting, so that of any hundred exactly its weight go there,
//! and every call of the clients that it lists. Where users or sessions have copies of their own, a key made of who
//! calls stays with one instance, and the canary's part is one of keys.
//!
//! A call that certainly did not get to its server is given to one other instance: of the newest snapshot, because
//! the usual reason is that a rollout has just switched. Where there is no other it is held for a while: for an instance
//! that is being started again, for a rollout that is about to switch, for a link that its toolbox has just lost, as when
//! its agent is upgraded.

use crate::endpoint::{Core, is_starting};
use crate::peer::{Failure, Peer, Peers, Replies};
use crate::session::SessionId;
use bytes::Bytes;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use toolyard_link::stack::THRESHOLD;
use toolyard_mcp::era::Era;
use toolyard_mcp::{CancelReason, envelope, json, stdio};
use toolyard_types::access::Actor;
use toolyard_types::snapshot::{CanaryRoute, InstanceRoute, KeyGrant, ServerRoute, Target};
use toolyard_types::spec::InstancingMode;
use toolyard_types::{Code, InstanceId, Name, RevisionId, ToolboxId};

/// How often a call that is held looks whether its instance has been started again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a toolbox whose calls fail at once is left alone while there are others.
const AVOID_FOR: Duration = Duration::from_millis(250);

/// How long calls wait for a toolbox that has just lost its link: agents are back within five seconds. One that stays
/// away costs nobody more than that.
const RECONNECT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a toolbox has to hear why a call is given up.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);
/// When nobody has missed a link for so long, its next loss is another one.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// A toolbox without a link.
#[derive(Clone, Copy)]
pub(crate) struct Lost {
    at: Instant,
    /// When a call last wanted to go there.
    missed: Instant,
}

impl Lost {
    /// Whether nobody has missed it for a while.
    pub(crate) fn is_old(&self) -> bool {
        self.missed.elapsed() > FORGOTTEN_AFTER
    }
}

/// Who calls, as far as the choice depends on it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) grant: Arc<KeyGrant>,
    /// Their session, when the client has one.
    pub(crate) session: Option<SessionId>,
}

impl Caller {
    /// Which copy their calls go to, where not everybody shares an instance.
    ///
    /// Modern clients have no sessions: theirs is the copy of their user.
    pub(crate) fn copy(&self, mode: InstancingMode) -> Option<CopyKey> {
        let digest = match (mode, &self.session) {
            (InstancingMode::Shared, _) => return None,
            (InstancingMode::PerSession, Some(session)) => Sha256::new().chain_update("session ").chain_update(session),
            (InstancingMode::PerSession | InstancingMode::PerUser, _) => {
                let who = format!("user {} {}", self.grant.organization, self.grant.actor());
                Sha256::new().chain_update(who)
            }
        };
        Some(CopyKey(digest.finalize().into()))
    }

    /// Who they are to a toolbox.
    pub(crate) fn principal(&self) -> Principals {
        let tag = |actor: &Actor| {
            let who = format!("principal {} {actor}", self.grant.organization);
            let digest = Sha256::new().chain_update(who).finalize();
            PrincipalTag(*digest.first_chunk().expect("a digest is longer"))
        };
        let own = tag(&self.grant.actor());
        Principals { own, share: self.grant.share_of.as_ref().map(tag) }
    }

    pub(crate) fn is_listed(&self, clients: &[String]) -> bool {
        !clients.is_empty() && {
            let actor = self.grant.actor().to_string();
            clients.iter().any(|client| *client == self.grant.name || *client == actor)
        }
    }
}

/// Names the copy of an instance that a message is for; says nothing about whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyKey([u8; 32]);

impl CopyKey {
    pub(crate) fn header(&self) -> HeaderValue {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::from_str(&text).expect("hex digits are a header's value")
    }

    /// Its place among a hundred.
    fn percent(&self) -> u64 {
        self.number() % 100
    }

    fn number(&self) -> u64 {
        self.0.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }

    /// How much it wants to go to an instance. As instances come and go, only the keys of those that did move.
    fn affinity(&self, instance: InstanceId) -> [u8; 32] {
        Sha256::new().chain_update(self.0).chain_update(instance.to_string()).finalize().into()
    }
}

/// Who a caller is to a toolbox: the same for all their keys and sessions, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrincipalTag([u8; 16]);

impl PrincipalTag {
    pub(crate) fn header(self) -> HeaderValue {
        hex(self.0)
    }
}

fn hex(bytes: [u8; 16]) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    HeaderValue::from_bytes(&text).expect("hex digits are a header's value")
}

/// Who calls, and whose share of what there is they use up when that is another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Principals {
    own: PrincipalTag,
    share: Option<PrincipalTag>,
}

/// Of whom a message is, as its toolbox is told; the default for what the gateway asks itself.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sender<'a> {
    /// The copy that it is for.
    pub(crate) copy: Option<&'a CopyKey>,
    pub(crate) principal: Option<Principals>,
    /// The call that it is, or that it is about.
    pub(crate) call: Option<&'a CallHandle>,
}

/// A call's name on the link, and why it is given up should it be.
#[derive(Clone)]
pub(crate) struct CallHandle {
    name: u128,
    pub(crate) reason: CancelReason,
}

impl CallHandle {
    fn new() -> Self {
        Self { name: rand::random(), reason: CancelReason::default() }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        hex(self.name.to_be_bytes())
    }
}

impl Sender<'_> {
    pub(crate) fn header(self) -> HeaderValue {
        self.principal.map_or(HeaderValue::from_static(stdio::Caller::GATEWAY), |principal| principal.own.header())
    }

    /// Whose share it uses up, where that is not the caller's own.
    pub(crate) fn share_header(self) -> Option<HeaderValue> {
        Some(self.principal?.share?.header())
    }

    /// Whose share it uses up.
    pub(crate) fn share(self) -> stdio::Caller {
        self.principal.map_or(stdio::Caller::Gateway, |principal| {
            let tag = principal.share.unwrap_or(principal.own);
            stdio::Caller::Principal(stdio::Principal(u128::from_be_bytes(tag.0)))
        })
    }
}

/// An instance that was chosen for a call. It counts as under way there until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) peer: Arc<Peer>,
    pub(crate) copy: Option<CopyKey>,
    /// Whose call it is.
    principal: Principals,
    /// The longest time the call may take.
    pub(crate) timeout: Duration,
    /// The revision that it runs.
    pub(crate) revision: Option<RevisionId>,
    is_canary: bool,
    at: Option<(InstanceId, ToolboxId)>,
    carried: Option<Arc<Carried>>,
    pub(crate) call: CallHandle,
}

impl Chosen {
    /// Of whom a message to it is.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender { copy: self.copy.as_ref(), principal: Some(self.principal), call: Some(&self.call) }
    }

    /// Tells the toolbox why the call is given up, when somebody said it.
    pub(crate) async fn tell_reason(&self) {
        let Some(reason) = self.call.reason.said() else { return };
        // Never the client's id: an agent that does not know the name must not take it for another one's call.
        let cancelled = envelope::cancelled(json::quote(&format!("{:032x}", self.call.name)), reason);
        let told = self.peer.send(cancelled, REASON_TIMEOUT, self.sender());
        let _ = tokio::time::timeout(REASON_TIMEOUT, told).await;
    }

    /// The instance, when it is none of a remote server.
    pub(crate) fn instance(&self) -> Option<InstanceId> {
        self.at.map(|(instance, _)| instance)
    }

    /// Does not count as a call under way: it may last for days.
    pub(crate) fn uncounted(&mut self) {
        self.carried = None;
    }
}

struct Carried(Arc<Peer>);

impl Carried {
    fn by(peer: &Arc<Peer>) -> Option<Arc<Self>> {
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Self(peer.clone())))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What sending came to.
pub(crate) struct Sent {
    pub(crate) replies: Replies,
    /// Who has the message now, when it is not who was chosen first.
    pub(crate) moved: Option<Chosen>,
}

/// The calls that a server's canary did not take and took.
#[derive(Clone, Copy)]
pub(crate) struct Count {
    canary: RevisionId,
    calls: u64,
}

impl Peers {
    /// An instance of the server that takes calls, or takes a part of them, for this caller.
    pub(crate) fn instance_for(&self, route: &ServerRoute, id: InstanceId, caller: &Caller) -> Option<Chosen> {
        let is_it = |instance: &&InstanceRoute| instance.id == id;
        if let Some(canary) = &route.canary
            && let Some(instance) = canary.instances.iter().find(is_it)
        {
            let (copy, timeout) =
                (caller.copy(canary.instancing), Duration::from_millis(canary.call_timeout_ms.max(1)));
            return Some(self.chosen(instance, copy, caller, timeout, Some(canary.revision), true));
        }
        let Target::Instances(instances) = &route.target else { return None };
        let instance = instances.iter().find(is_it)?;
        let (copy, timeout) = (caller.copy(route.instancing), Duration::from_millis(route.call_timeout_ms.max(1)));
        Some(self.chosen(instance, copy, caller, timeout, route.revision, false))
    }

    /// Every instance of the server that may have a copy for a session.
    pub(crate) fn with_sessions(&self, route: &ServerRoute) -> Vec<Arc<Peer>> {
        let stable = match &route.target {
            Target::Instances(instances) => Some((route.instancing, instances)),
            Target::None | Target::Remote { .. } => None,
        };
        let canary = route.canary.as_ref().map(|canary| (canary.instancing, &canary.instances));
        let having = [stable, canary].into_iter().flatten().filter(|(mode, _)| *mode == InstancingMode::PerSession);
        having.flat_map(|(_, instances)| instances).map(|it| self.instance(route.organization, it)).collect()
    }

    /// Who takes a call to the server.
    pub(crate) fn choose(&self, route: &ServerRoute, caller: &Caller) -> Result<Chosen, Failure> {
        if let Some(canary) = &route.canary
            && self.is_canarys(route, canary, caller)
        {
            let copy = caller.copy(canary.instancing);
            if let Some(instance) = self.pick(&canary.instances, None, copy.as_ref()) {
                let timeout = Duration::from_millis(canary.call_timeout_ms.max(1));
                return Ok(self.chosen(instance, copy, caller, timeout, Some(canary.revision), true));
            }
        }
        let timeout = Duration::from_millis(route.call_timeout_ms.max(1));
        if let Target::Instances(instances) = &route.target {
            let copy = caller.copy(route.instancing);
            if let Some(instance) = self.pick(instances, None, copy.as_ref()) {
                return Ok(self.chosen(instance, copy, caller, timeout, route.revision, false));
            }
        }
        let peer = self.first(route)?;
        let carried = Carried::by(&peer);
        let principal = caller.principal();
        Ok(Chosen {
            peer,
            copy: None,
            principal,
            timeout,
            revision: route.revision,
            is_canary: false,
            at: None,
            carried,
            call: CallHandle::new(),
        })
    }

    /// Asks a server what may be asked twice, such as a list: one instance after another, until one was reached. One that
    /// hangs or refuses is answered for: the next one would cost the same time again. While none can be reached it is held
    /// like a call, until `until`; `route` tells the server's route as it is by then.
    pub(crate) async fn ask<T, A>(
        &self,
        route: impl Fn() -> Option<Arc<ServerRoute>>,
        caller: Option<&Caller>,
        until: Instant,
        ask: impl Fn(Arc<Peer>) -> A,
    ) -> Result<T, Failure>
    where
        A: Future<Output = Result<T, Failure>>,
    {
        loop {
            let gone = || Failure::new(Code::ServerNotReady, "the server is no longer there");
            let route = route().ok_or_else(gone)?;
            let (mut first, mut may_wait) = (None, false);
            match self.tellers(&route, caller) {
                Ok(tellers) => {
                    for teller in tellers {
                        match ask(teller.clone()).await {
                            Ok(answer) => {
                                teller.toolbox().inspect(|toolbox| self.note_answer(*toolbox));
                                return Ok(answer);
                            }
                            Err(failure) => {
                                may_wait |= self.may_pass(&failure, teller.toolbox());
                                let was_reached = failure.undelivered.is_none() && !failure.broke;
                                first.get_or_insert(failure);
                                if was_reached {
                                    break;
                                }
                            }
                        }
                    }
                }
                Err(failure) => {
                    may_wait = is_starting(&route);
                    first = Some(failure);
                }
            }
            if !may_wait || Instant::now() + LOOK_AGAIN > until {
                return Err(first.unwrap_or_else(gone));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether what failed may be well in a moment.
    fn may_pass(&self, failure: &Failure, toolbox: Option<ToolboxId>) -> bool {
        match failure.undelivered {
            Some(Undelivered::NotReady) => failure.code == Code::ServerNotReady,
            Some(Undelivered::Stopping) => true,
            Some(Undelivered::NoLink) => {
                toolbox.is_some_and(|toolbox| !self.hangs(toolbox) && self.lost_since(toolbox).elapsed() < RECONNECT)
            }
            Some(Undelivered::Broken) | None => false,
        }
    }

    /// Sends a message to who was chosen; should it certainly not get there, to one other instance of the server.
    pub(crate) async fn send(
        &self,
        core: &Core,
        (organization, server): (&Name, &Name),
        chosen: &Chosen,
        caller: &Caller,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Sent, Failure> {
        let mut failure = match chosen.peer.send(message.clone(), timeout, chosen.sender()).await {
            Ok(replies) => {
                chosen.at.inspect(|(_, toolbox)| self.note_answer(*toolbox));
                return Ok(Sent { replies, moved: None });
            }
            Err(failure) => failure,
        };
        if let Some((_, toolbox)) = chosen.at.filter(|_| failure.broke) {
            self.note_break(toolbox);
        }
        let Some((instance, toolbox)) = chosen.at.filter(|_| failure.undelivered.is_some()) else {
            return Err(failure);
        };
        // Of several instances there the next one is not reached either.
        if matches!(failure.undelivered, Some(Undelivered::Broken | Undelivered::NoLink)) {
            self.avoided.insert(toolbox, Instant::now());
        }
        let era = chosen.peer.era().await?;
        let until = Instant::now() + core.hold.min(timeout);
        let mut snapshots = core.snapshots();
        let mut link_until = None;
        let other = loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let route = snapshot.organizations.get(organization).and_then(|it| it.servers.get(server).cloned());
            if let Some(mut other) = route.as_ref().and_then(|route| self.other(route, chosen, instance, caller, era)) {
                other.call = chosen.call.clone();
                break other;
            }
            // There will be no other: it was stopped, or does not start.
            let is_over = route.is_none_or(|route| route.target == Target::None && !is_starting(&route));
            match failure.undelivered {
                _ if is_over => return Err(failure),
                // What stops has usually been replaced; we hear of it in a moment.
                Some(Undelivered::Stopping) => {
                    if !matches!(tokio::time::timeout_at(until, snapshots.changed()).await, Ok(Ok(()))) {
                        return Err(failure);
                    }
                }
                // One that ended by itself is started again, under the same name.
                Some(Undelivered::NotReady) if failure.code == Code::ServerNotReady && Instant::now() < until => {
                    let _ = tokio::time::timeout(LOOK_AGAIN, snapshots.changed()).await;
                    match chosen.peer.send(message.clone(), timeout, chosen.sender()).await {
                        Ok(replies) => return Ok(Sent { replies, moved: None }),
                        Err(again) if again.undelivered.is_none() => return Err(again),
                        Err(again) => failure = again,
                    }
                }
                // An agent that is being restarted is back in a moment; what it ran may start elsewhere before, or start
                // again there when it is back.
                Some(Undelivered::NoLink)
                    if !self.hangs(toolbox)
                        && Instant::now() < *link_until.get_or_insert_with(|| self.lost_since(toolbox) + RECONNECT) =>
                {
                    tokio::time::sleep(LOOK_EVERY).await;
                    if !self.has_link(toolbox) {
                        continue;
                    }
                    let again = chosen.peer.send(message.clone(), timeout, chosen.sender()).await;
                    // There may be a way by another replica that finds no link either.
                    if !matches!(&again, Err(again) if again.undelivered == Some(Undelivered::NoLink)) {
                        self.lost.remove(&toolbox);
                    }
                    match again {
                        Ok(replies) => return Ok(Sent { replies, moved: None }),
                        Err(again) if again.undelivered.is_none() => return Err(again),
                        Err(again) => failure = again,
                    }
                }
                _ => return Err(failure),
            }
        };
        tracing::debug!(server.name = %server, why = failure.detail, "a call is sent again");
        let replies = match other.peer.send(message.clone(), timeout, other.sender()).await {
            // As after a start, when no toolbox has its link yet.
            Err(again) if again.undelivered == Some(Undelivered::NoLink) => match other.at {
                Some((_, toolbox)) if !self.hangs(toolbox) => {
                    self.send_when_linked(toolbox, &other, message, timeout, again).await?
                }
                _ => return Err(again),
            },
            outcome => outcome?,
        };
        Ok(Sent { replies, moved: Some(other) })
    }

    /// Another instance for a call that `tried` did not take.
    fn other(
        &self,
        route: &ServerRoute,
        chosen: &Chosen,
        tried: InstanceId,
        caller: &Caller,
        era: Era,
    ) -> Option<Chosen> {
        // A message was translated for one era already.
        let fits = |it: &&InstanceRoute| it.era == era;
        if let Some(canary) = route.canary.as_ref().filter(|_| chosen.is_canary) {
            let copy = caller.copy(canary.instancing);
            if let Some(instance) = self.pick(&canary.instances, Some(tried), copy.as_ref()).filter(fits) {
                return Some(self.chosen(instance, copy, caller, chosen.timeout, Some(canary.revision), true));
            }
        }
        let Target::Instances(instances) = &route.target else { return None };
        let copy = caller.copy(route.instancing);
        let instance = self.pick(instances, Some(tried), copy.as_ref()).filter(fits)?;
        Some(self.chosen(instance, copy, caller, chosen.timeout, route.revision, false))
    }

    fn chosen(
        &self,
        instance: &InstanceRoute,
        copy: Option<CopyKey>,
        caller: &Caller,
        timeout: Duration,
        revision: Option<RevisionId>,
        is_canary: bool,
    ) -> Chosen {
        let peer = self.instance(caller.grant.organization, instance);
        let carried = Carried::by(&peer);
        let (principal, at) = (caller.principal(), Some((instance.id, instance.toolbox)));
        Chosen { peer, copy, principal, timeout, revision, is_canary, at, carried, call: CallHandle::new() }
    }

    fn is_canarys(&self, route: &ServerRoute, canary: &CanaryRoute, caller: &Caller) -> bool {
        let weight = u64::from(canary.weight.min(100));
        if caller.is_listed(&canary.clients) {
            return true;
        }
        if let Some(copy) = caller.copy(canary.instancing) {
            return copy.percent() < weight;
        }
        let mut count = self.counts.entry(route.id).or_insert(Count { canary: canary.revision, calls: 0 });
        if count.canary != canary.revision {
            *count = Count { canary: canary.revision, calls: 0 };
        }
        let before = count.calls;
        count.calls = before.wrapping_add(1);
        is_turn(before, weight)
    }

    fn pick<'a>(
        &self,
        instances: &'a [InstanceRoute],
        tried: Option<InstanceId>,
        copy: Option<&CopyKey>,
    ) -> Option<&'a InstanceRoute> {
        if let [only] = instances {
            return Some(only).filter(|only| Some(only.id) != tried);
        }
        let others = || instances.iter().filter(|instance| Some(instance.id) != tried);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let best = |usable: &dyn Fn(&InstanceRoute) -> bool| match copy {
            Some(copy) => others().filter(|it| usable(it)).max_by_key(|it| copy.affinity(it.id)),
            None => {
                let count = others().count().max(1);
                let in_turn = others().cycle().skip(turn % count).take(count);
                // The first of equals wins.
                in_turn.filter(|it| usable(it)).min_by_key(|it| self.in_flight(it.id))
            }
        };
        // With nobody to be reached the error says so.
        best(&|it| self.can_reach(it.toolbox)).or_else(|| best(&|_| true))
    }

    fn in_flight(&self, instance: InstanceId) -> usize {
        self.known_instance(instance).map_or(0, |peer| peer.in_flight.load(Ordering::Relaxed))
    }

    /// Sends a message once the link of a toolbox that has lost it just now is back.
    async fn send_when_linked(
        &self,
        toolbox: ToolboxId,
        chosen: &Chosen,
        message: Bytes,
        timeout: Duration,
        mut failure: Failure,
    ) -> Result<Replies, Failure> {
        let lost_at = self.lost_since(toolbox);
        while lost_at.elapsed() < RECONNECT {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.has_link(toolbox) {
                continue;
            }
            // There may be a way by another replica that finds no link either.
            match chosen.peer.send(message.clone(), timeout, chosen.sender()).await {
                Err(again) if again.undelivered == Some(Undelivered::NoLink) => failure = again,
                outcome => {
                    self.lost.remove(&toolbox);
                    return outcome;
                }
            }
        }
        Err(failure)
    }

    /// Since when a toolbox has had no link, as far as anybody has missed it.
    fn lost_since(&self, toolbox: ToolboxId) -> Instant {
        let now = Instant::now();
        let mut lost = self.lost.entry(toolbox).or_insert(Lost { at: now, missed: now });
        if lost.is_old() {
            lost.at = now;
        }
        lost.missed = now;
        lost.at
    }

    /// Forgets what was missed of a toolbox: its next loss is another one.
    fn note_answer(&self, toolbox: ToolboxId) {
        // Nearly always there is nothing, and looking shares the lock.
        if self.lost.contains_key(&toolbox) {
            self.lost.remove(&toolbox);
        }
        if self.breaks.contains_key(&toolbox) {
            self.breaks.remove(&toolbox);
        }
    }

    fn note_break(&self, toolbox: ToolboxId) {
        let mut breaks = self.breaks.entry(toolbox).or_insert((0, Instant::now()));
        let in_a_row = if breaks.1.elapsed() < RECONNECT { breaks.0 } else { 0 };
        *breaks = (in_a_row.saturating_add(1), Instant::now());
    }

    /// Whether many calls broke off before the link was given up: then its agent hangs, and is not just restarted.
    fn hangs(&self, toolbox: ToolboxId) -> bool {
        self.breaks.get(&toolbox).is_some_and(|breaks| breaks.0 >= THRESHOLD && breaks.1.elapsed() < FORGOTTEN_AFTER)
    }

    pub(crate) fn can_reach(&self, toolbox: ToolboxId) -> bool {
        let avoided = self.avoided.get(&toolbox).is_some_and(|since| since.elapsed() < AVOID_FOR);
        !avoided && self.has_link(toolbox)
    }
}

/// Why a message certainly did not reach its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// Its toolbox has no link now.
    NoLink,
    /// Calls to its toolbox fail at once for a while.
    Broken,
    /// The instance is not ready, or has no room.
    NotReady,
    /// The instance is being stopped, or is gone.
    Stopping,
}

/// Whether the call with this number, of a server whose canary takes `weight` of a hundred, is the canary's.
fn is_turn(number: u64, weight: u64) -> bool {
    // Of any hundred in a row, `weight` and evenly spread.
    let position = number % 100;
    (position + 1) * weight / 100 > position * weight / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toolyard_types::access::Role;
    use toolyard_types::{ApiKeyId, OrganizationId};

    fn caller(session: Option<SessionId>) -> Caller {
        let grant = KeyGrant {
            id: ApiKeyId::generate(),
            name: "ci".to_owned(),
            organization: OrganizationId::generate(),
            organization_name: Name::new("default").unwrap(),
            role: Role::Developer,
            scope: None,
            expires_at: None,
            member: None,
            share_of: None,
        };
        Caller { grant: Arc::new(grant), session }
    }

    proptest! {
        #[test]
        fn of_any_thousand_calls_the_canary_gets_exactly_its_part(first in 0_u64..1_000_000, weight in 0_u64..=100) {
            let taken = (first..first + 1000).filter(|number| is_turn(*number, weight)).count();
            prop_assert_eq!(u64::try_from(taken).unwrap(), weight * 10);
        }
    }

    #[test]
    fn a_key_is_one_users_or_one_sessions() {
        let (one, other) = (caller(Some([1; 12])), caller(Some([1; 12])));
        assert_eq!(one.copy(InstancingMode::Shared), None);
        assert_ne!(one.copy(InstancingMode::PerUser), other.copy(InstancingMode::PerUser));
        let later = Caller { session: Some([2; 12]), ..one.clone() };
        assert_eq!(one.copy(InstancingMode::PerUser), later.copy(InstancingMode::PerUser));
        assert_ne!(one.copy(InstancingMode::PerSession), later.copy(InstancingMode::PerSession));
        let modern = Caller { session: None, ..one.clone() };
        assert_eq!(modern.copy(InstancingMode::PerSession), one.copy(InstancingMode::PerUser));
        let header = one.copy(InstancingMode::PerUser).unwrap().header();
        assert_eq!(header.len(), 64);
    }

    #[test]
    fn a_listed_client_is_known_by_the_name_of_its_key_or_as_an_actor() {
        let caller = caller(None);
        let actor = caller.grant.actor().to_string();
        assert!(caller.is_listed(&["ci".to_owned()]) && caller.is_listed(&["x".to_owned(), actor]));
        assert!(!caller.is_listed(&[]) && !caller.is_listed(&["c".to_owned()]));
    }
}
