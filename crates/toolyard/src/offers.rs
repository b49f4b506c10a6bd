//! Offers connections to agents that listen. Each replica keeps one untaken connection at each of them; what an agent
//! takes is served as if the agent had dialled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use toolyard_control::Control;
use toolyard_link::tls::{Acceptor, PeerIdentity};
use toolyard_link::{OfferError, OfferedStream, Outgoing, Payer, Waited, offer, wait_taken};
use toolyard_types::ToolboxId;

use crate::agent::chain;
use crate::listen::{self, Server};

/// The pause after a failure: grows to the longest, with a random part, so that agents are not asked all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Connections that one agent may have taken: two links, a sync, a renewal, and what is just ending.
const MOST_TAKEN: usize = 16;
/// The pause between two offers whatever happens: one that takes them as fast as they come costs little.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// What every offered connection needs.
#[derive(Clone)]
struct Offering {
    control: Control,
    acceptor: Acceptor,
    outgoing: Outgoing,
    router: Router,
    server: Server,
}

/// Why an agent has no connection to take.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("offer a connection")]
    Offer(#[from] OfferError),
    #[error("another toolbox's agent listens there")]
    Foreign,
    #[error("the agent closed the connection at once")]
    Closed,
}

/// Offers connections to every agent that listens until `server` drains, then until every request under way has
/// ended.
pub(crate) async fn keep(control: Control, router: Router, acceptor: Acceptor, outgoing: Outgoing, server: Server) {
    let mut listening = control.listening_agents();
    let offering = Offering { control, acceptor, outgoing, router, server };
    // Aborted when dropped: what was taken goes on, in tasks of its own.
    let mut agents: BTreeMap<ToolboxId, (String, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let wanted = listening.borrow_and_update().clone();
        agents.retain(|toolbox, (address, _)| wanted.get(toolbox) == Some(address));
        for (toolbox, address) in wanted {
            agents.entry(toolbox).or_insert_with(|| {
                let task = tokio::spawn(offering.clone().keep_one(toolbox, address.clone()));
                (address, AbortOnDropHandle::new(task))
            });
        }
        tokio::select! {
            changed = listening.changed() => if changed.is_err() { break },
            () = offering.server.draining() => break,
        }
    }
    drop(agents);
    offering.server.drained().await;
}

impl Offering {
    async fn keep_one(self, toolbox: ToolboxId, address: String) {
        let taken = Arc::new(Semaphore::new(MOST_TAKEN));
        let mut failures = 0_u32;
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&taken).acquire_owned().await else { return };
            let offered = self.offer_one(toolbox, &address).await;
            if offered.is_ok() {
                // Also what a task for an earlier address may have noted last.
                self.control.note_offer(toolbox, None);
                if std::mem::take(&mut failures) > 0 {
                    tracing::info!(toolbox.id = %toolbox, address, "the agent takes connections again");
                }
            }
            let pause = match offered {
                Ok(Some((stream, peer))) => {
                    let (server, router, control) = (self.server.clone(), self.router.clone(), self.control.clone());
                    self.server.spawn(async move {
                        serve(stream, peer, &server, router, &control).await;
                        drop(place);
                    });
                    LEAST_PAUSE
                }
                Ok(None) => LEAST_PAUSE,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // One that just got its certificate lets go of what was offered before.
                    let passing = failures == 1 && matches!(error, Refused::Closed);
                    let error = &error as &dyn std::error::Error;
                    if !passing {
                        self.control.note_offer(toolbox, Some(&chain(error)));
                    }
                    if failures.is_power_of_two() && !passing {
                        tracing::warn!(error, toolbox.id = %toolbox, address, failures, "no connection to a listening agent");
                    }
                    pause_after(failures)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, once the agent has taken it; none when it was not taken for a while.
    async fn offer_one(
        &self,
        toolbox: ToolboxId,
        address: &str,
    ) -> Result<Option<(OfferedStream, Option<PeerIdentity>)>, Refused> {
        let (mut stream, peer) = offer(address, self.control.replica(), &self.acceptor, &self.outgoing).await?;
        match peer {
            None => {}
            Some(PeerIdentity::Toolbox(certificate)) if certificate.toolbox == toolbox => {}
            Some(_) => return Err(Refused::Foreign),
        }
        let offered = tokio::time::Instant::now();
        match wait_taken(&mut stream).await {
            Waited::Taken => Ok(Some((stream, peer))),
            Waited::Stale => Ok(None),
            // It has another certificate now, or it ends.
            Waited::Closed if offered.elapsed() > LONGEST_PAUSE => Ok(None),
            Waited::Closed => Err(Refused::Closed),
        }
    }
}

async fn serve(stream: OfferedStream, peer: Option<PeerIdentity>, server: &Server, router: Router, control: &Control) {
    let (router, payer) = match peer {
        Some(PeerIdentity::Toolbox(certificate)) => {
            (router.layer(Extension(certificate)), listen::toolbox(control, certificate.toolbox))
        }
        _ => (router, listen::always(Payer::stranger(None))),
    };
    server.hold(stream, router, None, payer).await;
}

fn pause_after(failures: u32) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}
