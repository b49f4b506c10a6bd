//! How what runs fares, on one toolbox or in a whole organization: from rows, with a fixed number of queries.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use toolyard_store::{InstanceRow, OrgTx};
use toolyard_types::api::servers::{Health, InstanceCount, InstanceError};
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{Name, ServerId, Timestamp, ToolboxId};

use crate::{Control, Result};

/// How long an error is recent.
const RECENT: Duration = Duration::from_secs(24 * 3600);
/// The most errors that are told of.
const MOST_ERRORS: u32 = 20;

/// How the instances of a toolbox fare, or all of the organization.
pub(crate) async fn of(control: &Control, tx: &OrgTx, toolbox: Option<ToolboxId>) -> Result<Health> {
    let since = control.clock().now().minus(RECENT);
    let tallies = tx.count_instances(toolbox).await?;
    let troubled = tx.troubled_instances(toolbox, since, MOST_ERRORS).await?;
    let toolboxes: HashMap<_, _> = tx.toolboxes().await?.into_iter().map(|row| (row.id, row.name)).collect();
    let servers: Vec<_> = troubled.iter().map(|row| row.server).collect();
    let servers = tx.server_names(&servers).await?;
    let heard = match toolbox {
        Some(id) => control.fleet().last_answered(id),
        None => toolboxes.keys().filter_map(|id| control.fleet().last_answered(*id)).max(),
    };
    let mut health = Health { last_success_at: heard, ..Health::default() };
    for tally in tallies {
        health.phases.push(InstanceCount { phase: tally.phase, count: tally.number });
        health.copies = health.copies.saturating_add(tally.copies);
        health.restarts = health.restarts.saturating_add(tally.restarts);
        health.last_success_at = health.last_success_at.max(tally.last_success_at);
    }
    health.recent_errors =
        troubled.iter().filter_map(|row| error(row, &servers, &toolboxes)).filter(|error| error.at >= since).collect();
    health.recent_errors.sort_by_key(|error| Reverse(error.at));
    Ok(health)
}

/// What went wrong with an instance, as far as that is still known: where it is now, or how it ended last by itself.
fn error(
    row: &InstanceRow,
    servers: &HashMap<ServerId, Name>,
    toolboxes: &HashMap<ToolboxId, Name>,
) -> Option<InstanceError> {
    let status = &row.status;
    let fails = matches!(status.phase, Phase::Failed | Phase::Degraded)
        || (status.phase == Phase::Starting && status.reason == Reason::Exited);
    let (reason, message, at) = match &row.exit {
        _ if fails => (status.reason, status.message.clone(), status.since),
        Some(exit) => {
            let (reason, how) = match (&exit.failure, exit.code, exit.signal) {
                (Some(failure), ..) => (failure.reason, failure.message.clone()),
                (None, Some(code), _) => (Reason::Exited, format!("it ended by itself with exit code {code}")),
                (None, None, Some(signal)) => (Reason::Exited, format!("it was ended by signal {signal}")),
                (None, None, None) => (Reason::Exited, "it ended".to_owned()),
            };
            let then = if was_started_again(row, exit.at) { ", and was started again" } else { "" };
            (reason, format!("{how}{then}"), exit.at)
        }
        None => return None,
    };
    Some(InstanceError {
        instance: row.id,
        server: servers.get(&row.server).cloned(),
        toolbox: toolboxes.get(&row.toolbox).cloned(),
        reason,
        message,
        at,
    })
}

/// Whether an instance that ended by itself was started again before its end: one that was given up while it waited for that,
/// such as that of a rollout that went back, was not.
fn was_started_again(row: &InstanceRow, exit: Timestamp) -> bool {
    let runs = matches!(row.status.phase, Phase::Ready | Phase::Starting | Phase::Preparing);
    let has_answered = row.mcp.is_some() && row.last_success_at.is_none_or(|answer| answer >= exit);
    runs || has_answered
}

#[cfg(test)]
mod tests {
    use toolyard_types::agent::{Exit, Failure};
    use toolyard_types::state::RolloutState;

    use super::*;
    use crate::reconcile::phase::tests::{instance, rollout, server};

    #[test]
    fn only_an_instance_that_was_started_again_is_said_to_have_been() {
        let of = rollout(&server(), RolloutState::RolledBack);
        let at = Timestamp::from_ms(5);
        let told = |phase: Phase| {
            let mut row = instance(&of, phase);
            row.restarts = 1;
            row.exit = Some(Exit { code: Some(2), signal: None, at, stderr_tail: String::new(), failure: None });
            error(&row, &HashMap::new(), &HashMap::new()).map(|error| error.message)
        };
        assert_eq!(told(Phase::Ready).as_deref(), Some("it ended by itself with exit code 2, and was started again"));
        assert_eq!(told(Phase::Stopped).as_deref(), Some("it ended by itself with exit code 2"));
    }

    #[test]
    fn an_instance_that_its_agent_ended_is_not_said_to_have_ended_by_itself() {
        let mut row = instance(&rollout(&server(), RolloutState::RolledBack), Phase::Stopped);
        let failure = Failure { reason: Reason::StartTimeout, message: "it did not answer the handshake".into() };
        let at = Timestamp::from_ms(5);
        row.exit =
            Some(Exit { code: Some(0), signal: None, at, stderr_tail: String::new(), failure: Some(failure.clone()) });
        let told = error(&row, &HashMap::new(), &HashMap::new()).expect("it failed");
        assert_eq!((told.reason, told.message), (failure.reason, failure.message));
    }
}
