//! What is known of one instance.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use toolyard_mcp::stdio::Connection;
use toolyard_types::agent::{Era, ObservedInstance};
use toolyard_types::state::{Phase, Reason, Status};
use toolyard_types::{InstanceId, Timestamp};

/// What is known of an instance; shared between its task, the sync and the API.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
    /// Rises when something changed that the control plane waits for.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) observed: ObservedInstance,
    pub(crate) connection: Option<Connection>,
    pub(crate) ended: bool,
    pub(crate) reported: bool,
}

impl State {
    /// Takes a new status; the phase that it goes on with began when it began.
    pub(crate) fn enter(&mut self, status: Status<Phase>) {
        self.observed.status = self.observed.status.followed_by(status);
    }
}

impl Slot {
    pub(crate) fn new(id: InstanceId, now: Timestamp, changed: watch::Sender<u64>) -> Self {
        let observed = ObservedInstance {
            id,
            status: Status::new(Phase::Pending, Reason::Requested, "", now),
            pid: None,
            ready_since: None,
            restarts: 0,
            exit: None,
            mcp: None,
            usage: None,
            container_id: None,
            last_success_at: None,
            failures: 0,
            copies: 0,
            secret_versions: BTreeMap::new(),
        };
        Self { state: Mutex::new(State { observed, connection: None, ended: false, reported: false }), changed }
    }

    /// Says that the server answered. That alone is no news to wait for.
    pub(crate) fn note_answer(&self, now: Timestamp) {
        let mut state = self.state();
        state.observed.last_success_at = Some(now);
        if std::mem::take(&mut state.observed.failures) > 0 {
            drop(state);
            self.wake();
        }
    }

    /// Everything observed.
    pub(crate) fn observed(&self) -> ObservedInstance {
        self.state().observed.clone()
    }

    /// Where it is and why.
    pub(crate) fn status(&self) -> Status<Phase> {
        self.state().observed.status.clone()
    }

    /// Which era it spoke last.
    pub(crate) fn era(&self) -> Option<Era> {
        self.state().observed.mcp.as_ref().map(|mcp| mcp.era)
    }

    /// The connection to the server, while it runs and has answered.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.state().connection.clone()
    }

    /// Ends the connection to the server, which runs on.
    pub(crate) fn let_go(&self) {
        if let Some(connection) = self.state().connection.take() {
            connection.close();
        }
    }

    /// Whether it was stopped and nothing of it runs, and whether the control plane knows.
    pub(crate) fn ended(&self) -> (bool, bool) {
        let state = self.state();
        (state.ended, state.reported)
    }

    /// Notes that the control plane has been told of the end.
    pub(crate) fn report_end(&self) {
        let mut state = self.state();
        if state.ended && !state.reported {
            state.reported = true;
            drop(state);
            self.wake();
        }
    }

    /// A poisoned lock means a panic between two whole assignments; the state is still whole.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and says so.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}
