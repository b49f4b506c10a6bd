//! How what runs fares, on one toolbox or in a whole organization: from rows, with a fixed number of queries.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use toolyard_store::{InstanceRow, OrgTx};
use toolyard_types::api::servers::{Health, InstanceCount, InstanceError};
use toolyard_types::state::{Phase, Reason};
use toolyard_types::{Name, ServerId, ToolboxId};

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

/// What went wrong with an instance, as far as that is still known: where it is now, or how it ended before it was
/// started again.
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
            let how = match (exit.code, exit.signal) {
                (Some(code), _) => format!("it ended by itself with exit code {code}, and was started again"),
                (None, Some(signal)) => format!("it was ended by signal {signal}, and was started again"),
                (None, None) => "it ended, and was started again".to_owned(),
            };
            (Reason::Exited, how, exit.at)
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
