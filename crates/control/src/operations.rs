//! What operators' tools ask a control plane: may this caller see something, and an organization's own metrics.

use http::HeaderMap;
use toolyard_policy::Resource;
use toolyard_types::OrganizationId;
use toolyard_types::access::Action;
use toolyard_types::state::Phase;

use crate::auth::{self, Purpose};
use crate::{Control, Result, app};

impl Control {
    /// The key that seals gateways' sessions: the same on every replica and after a restart.
    #[must_use]
    pub fn gateway_session_key(&self) -> [u8; 32] {
        self.vault().derive_key("gateway sessions")
    }

    /// Finds out who is asking, and refuses what they may not do in their organization: for what the program
    /// serves beside the API.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden`; when the store fails.
    pub async fn may(&self, headers: &HeaderMap, action: Action) -> Result<()> {
        let caller = auth::authenticate(self, headers, None, Purpose::Read).await?;
        app::allow(self, &caller, action, &Resource::Organization)
    }

    /// What an organization may know of itself as metrics; for whoever may see its toolboxes.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden`, `rate_limited`; when the store fails.
    pub async fn organization_metrics(&self, headers: &HeaderMap) -> Result<OrganizationMetrics> {
        let caller = auth::authenticate(self, headers, None, Purpose::Read).await?;
        self.request_rates().count(&caller)?;
        app::allow(self, &caller, Action::ToolboxRead, &Resource::Organization)?;
        let snapshot = self.snapshots().borrow().clone();
        let organization = snapshot.organizations.get(&caller.organization_name);
        let routes = || organization.into_iter().flat_map(|organization| organization.servers.values());
        let count = |phase: Phase| routes().filter(|route| route.phase == phase).count();
        Ok(OrganizationMetrics {
            organization: caller.organization,
            servers: Phase::ALL.iter().map(|&phase| (phase, count(phase))).collect(),
        })
    }
}

/// See [`Control::organization_metrics`].
#[derive(Clone, Debug)]
pub struct OrganizationMetrics {
    /// Whose they are.
    pub organization: OrganizationId,
    /// Its servers, by the phase they are in.
    pub servers: Vec<(Phase, usize)>,
}

/// Says what each metric of the control plane means, for `/metrics`.
pub(crate) fn describe_metrics() {
    crate::app::reports::describe_metrics();
    metrics::describe_counter!("toolyard_sign_ins_total", "Attempts to sign in, by how they ended.");
    metrics::describe_gauge!("toolyard_ready", "1 while a part of this replica is ready, else 0.");
    metrics::describe_counter!("toolyard_keys_refused_total", "API keys that were refused, by where they were shown.");
    metrics::describe_counter!(
        "toolyard_refusals_not_recorded_total",
        "Refused changes that are not in the audit log, because too many were refused at once."
    );
    metrics::describe_gauge!("toolyard_replicas", "Replicas of this control plane that were heard of lately.");
    metrics::describe_gauge!("toolyard_database_connections", "Connections to the database: open, and of those idle.");
    metrics::describe_gauge!("toolyard_servers", "Servers by the phase they are in.");
    metrics::describe_counter!("toolyard_rollouts_total", "Rollouts that ended, by how.");
    metrics::describe_gauge!(
        "toolyard_snapshot_organizations_behind",
        "Organizations of which something that changed could not be read for the gateway yet."
    );
    metrics::describe_gauge!(
        "toolyard_toolboxes_lost",
        "Toolboxes that were silent for so long that their servers are placed elsewhere."
    );
    metrics::describe_counter!("toolyard_toolboxes_given_up_total", "Toolboxes whose servers were placed elsewhere.");
    metrics::describe_counter!(
        "toolyard_toolboxes_held_back_total",
        "Unreachable toolboxes that were not evicted, because more than half of all were unreachable."
    );
    // There from the start: what is watched for a change is to be seen before the first.
    metrics::counter!("toolyard_toolboxes_held_back_total").increment(0);
    metrics::describe_counter!(
        "toolyard_instances_lost_total",
        "Instances that were evicted with their toolbox and replaced."
    );
    metrics::describe_counter!(
        "toolyard_instances_returned_total",
        "Replaced instances that still ran when their toolbox was heard again."
    );
    metrics::describe_histogram!(
        "toolyard_sync_seconds",
        metrics::Unit::Seconds,
        "Time to take in what an agent observed."
    );
    metrics::describe_counter!("toolyard_loop_runs_total", "Runs of the loops that make servers what they should be.");
    metrics::describe_counter!("toolyard_loop_errors_total", "Runs of a loop that failed; the next run tries again.");
    metrics::describe_counter!("toolyard_call_records_written_total", "Call records written to the database.");
    metrics::describe_gauge!(
        "toolyard_call_records_waiting",
        "Call records that wait on disk until the database takes them."
    );
    metrics::gauge!("toolyard_call_records_waiting").increment(0.0);
    metrics::describe_counter!("toolyard_audit_forgotten_total", "Audit records that were too old or too many.");
}
