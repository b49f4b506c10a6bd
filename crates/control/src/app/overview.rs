//! The overview: what runs, what is broken and why, what happened, what could be next.
//!
//! Phases come from the snapshot, which is in memory and follows every commit; only servers in trouble, and those that have
//! no instance left, are read. So the answer costs the same few queries for one server and for thousands.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use toolyard_policy::Resource;
use toolyard_store::{AuditFilter, CallFilter, OrgTx, ServerRow};
use toolyard_types::access::Action;
use toolyard_types::api::activity::{
    CallMinute, CallsOverview, NextStep, OutcomeCount, Overview, PhaseCount, ServerTrouble, ServersOverview,
    ToolboxStateCount,
};
use toolyard_types::snapshot::{CallOutcome, ServerRoute};
use toolyard_types::state::{Phase, Reason, ToolboxState};
use toolyard_types::{Name, ServerId, Timestamp};

use super::server_view::Views;
use super::{health, scope};
use crate::{Caller, Control, Result, calls};

/// The most servers in trouble that are told of.
const TROUBLE: usize = 20;
/// The most servers in trouble that are read to find those that changed last.
const TROUBLE_READ: usize = 500;
/// How long a server may be without an instance before somebody may have to look.
const NOWHERE: Duration = Duration::from_secs(60);
const ACTIVITY: u32 = 10;
/// Earlier versions wrote it with each page of the console that speaks MCP. It tells of nothing that anybody did, and
/// would fill the list for as long as the audit log is kept.
const NO_ACTIVITY: &str = "session.mcp_key";
const MINUTES: i64 = 60;
const MINUTE_MS: i64 = 60_000;

/// Everything that the first page shows.
pub(crate) async fn get(control: &Control, caller: &Caller) -> Result<Overview> {
    let may = |action| control.decider().allows(caller, action, &Resource::Organization);
    let now = control.clock().now();
    let tx = control.store().org_read(caller.organization).await?;
    let filter = CallFilter { within: scope::ids(&tx, caller).await?, ..CallFilter::default() };
    let servers = if may(Action::ServerRead) { Some(servers(control, caller, &tx).await?) } else { None };
    let toolboxes = if may(Action::ToolboxRead) { Some(toolboxes(&tx).await?) } else { None };
    let activity = if may(Action::AuditRead) {
        let within = scope::subjects(caller);
        let filter = AuditFilter { except: Some(NO_ACTIVITY), within, ..AuditFilter::default() };
        Some(tx.audit_records(&filter, None, ACTIVITY).await?)
    } else {
        None
    };
    let toolsets = match scope::names(caller) {
        Some(_) => filter.within.as_ref().map_or(0, |(_, toolsets)| u64::try_from(toolsets.len()).unwrap_or(u64::MAX)),
        None => tx.count_toolsets().await?,
    };
    // As many as the list shows to the caller.
    let credentials = match &caller.scope {
        Some(_) => {
            let may_read =
                |name: Name| control.decider().allows(caller, Action::CredentialRead, &Resource::Credential(name));
            let seen = tx.credential_ids().await?.into_keys().filter(|name| may_read(name.clone())).count();
            u64::try_from(seen).unwrap_or(u64::MAX)
        }
        None => tx.count_credentials().await?,
    };
    let has_servers = match &servers {
        Some(servers) => servers.total > 0,
        None => tx.count_servers(scope::names(caller)).await?.0 > 0,
    };
    // Errors name servers, so who may see only some of them gets none.
    let instances = match may(Action::ToolboxRead) && scope::names(caller).is_none() {
        true => Some(health::of(control, &tx, None).await?),
        false => None,
    };
    let has_keys = tx.has_own_keys().await?;
    drop(tx);
    let calls = calls_of_last_hour(control, caller, &filter, now).await?;
    let has_calls = calls.total > 0 || calls::any(control, caller, &filter).await?;
    Ok(Overview {
        at: now,
        servers,
        toolboxes,
        instances,
        toolsets: may(Action::ToolsetRead).then_some(toolsets),
        credentials: may(Action::CredentialRead).then_some(credentials),
        calls: may(Action::ServerRead).then_some(calls),
        activity,
        next_step: NextStep { has_servers, has_toolsets: toolsets > 0, has_keys, has_calls },
    })
}

async fn servers(control: &Control, caller: &Caller, tx: &OrgTx) -> Result<ServersOverview> {
    let snapshot = control.snapshots().borrow().clone();
    let organization = snapshot.organizations.get(&caller.organization_name);
    let mut phases: Vec<PhaseCount> = Phase::ALL.iter().map(|&phase| PhaseCount { phase, count: 0 }).collect();
    let (mut troubled, mut waiting): (Vec<ServerId>, Vec<ServerId>) = (Vec::new(), Vec::new());
    for (name, route) in organization.iter().flat_map(|organization| &organization.servers) {
        if !scope::includes(caller, name.as_str()) {
            continue;
        }
        for count in phases.iter_mut().filter(|count| count.phase == route.phase) {
            count.count += 1;
        }
        if is_in_trouble(route) {
            troubled.push(route.id);
        } else if waits(route) {
            waiting.push(route.id);
        }
    }
    // How long they wait the snapshot does not know. Few do, unless many toolboxes went at once.
    let now = control.clock().now();
    for some in waiting.chunks(TROUBLE_READ) {
        let rows = tx.servers_by_id(some).await?;
        let views = Views::read(control, tx, &caller.organization_name, &rows).await?;
        let lasts = |row: &&ServerRow| views.nowhere_since(row).is_some_and(|since| now.since(since) >= NOWHERE);
        troubled.extend(rows.iter().filter(lasts).map(|row| row.id));
    }
    let in_trouble = u64::try_from(troubled.len()).unwrap_or(u64::MAX);
    troubled.truncate(TROUBLE_READ);
    let rows = tx.servers_by_id(&troubled).await?;
    let views = Views::read(control, tx, &caller.organization_name, &rows).await?;
    let mut trouble: Vec<ServerTrouble> = rows
        .iter()
        .map(|row| {
            let status = views.status(row);
            ServerTrouble {
                name: row.name.clone(),
                phase: status.phase,
                reason: status.reason,
                message: status.message,
                since: status.since,
                next_attempt_at: status.next_attempt_at,
            }
        })
        .collect();
    trouble.sort_by(|a, b| Reverse(a.since).cmp(&Reverse(b.since)).then_with(|| a.name.cmp(&b.name)));
    trouble.truncate(TROUBLE);
    let (total, enabled) = tx.count_servers(scope::names(caller)).await?;
    Ok(ServersOverview { total, enabled, phases, in_trouble, trouble })
}

/// Whether a server does not do what it should, and somebody may have to look.
fn is_in_trouble(route: &ServerRoute) -> bool {
    match route.phase {
        Phase::Failed | Phase::Degraded | Phase::Unknown => true,
        Phase::Pending | Phase::Preparing | Phase::Starting => !matches!(
            route.reason,
            Reason::Requested
                | Reason::AwaitingToolbox
                | Reason::Resolving
                | Reason::Installing
                | Reason::AwaitingProbe
                | Reason::Answered
        ),
        Phase::Ready | Phase::Stopping | Phase::Stopped => false,
    }
}

/// Whether a server has served, and waits for a toolbox that takes another instance of it.
fn waits(route: &ServerRoute) -> bool {
    route.phase == Phase::Pending && route.reason == Reason::AwaitingToolbox && route.revision.is_some()
}

async fn toolboxes(tx: &OrgTx) -> Result<Vec<ToolboxStateCount>> {
    let toolboxes = tx.toolboxes().await?;
    let count = |state: &ToolboxState| toolboxes.iter().filter(|toolbox| toolbox.status.phase == *state).count();
    let counts = ToolboxState::ALL.iter().filter(|state| **state != ToolboxState::Removed);
    Ok(counts
        .map(|state| ToolboxStateCount { state: *state, count: u64::try_from(count(state)).unwrap_or(u64::MAX) })
        .collect())
}

async fn calls_of_last_hour(
    control: &Control,
    caller: &Caller,
    filter: &CallFilter,
    now: Timestamp,
) -> Result<CallsOverview> {
    let minute = now.as_ms().div_euclid(MINUTE_MS);
    let since = Timestamp::from_ms((minute - MINUTES + 1) * MINUTE_MS);
    let counts = control.calls().store().counts(caller.organization, filter, since, MINUTE_MS).await?;
    let mut minutes: BTreeMap<i64, CallMinute> = (0..MINUTES)
        .map(|number| {
            let at = Timestamp::from_ms(since.as_ms() + number * MINUTE_MS);
            (at.as_ms(), CallMinute { at, count: 0, errors: 0 })
        })
        .collect();
    let mut outcomes: Vec<OutcomeCount> = Vec::new();
    let mut total = 0;
    // A record of a clock that is ahead belongs to no minute yet.
    for count in counts {
        let Some(minute) = minutes.get_mut(&count.at.as_ms()) else { continue };
        total += count.count;
        minute.count += count.count;
        if !matches!(count.outcome, CallOutcome::Ok | CallOutcome::Cancelled) {
            minute.errors += count.count;
        }
        match outcomes.iter_mut().find(|known| known.outcome == count.outcome) {
            Some(known) => known.count += count.count,
            None => outcomes.push(OutcomeCount { outcome: count.outcome, count: count.count }),
        }
    }
    outcomes.sort_by_key(|outcome| Reverse(outcome.count));
    // Of which servers they tell is not known, so who may see only some is told of none.
    let tally = if filter.within.is_none() { calls::tally(control, caller) } else { calls::Tally::default() };
    Ok(CallsOverview {
        since,
        total,
        outcomes,
        minutes: minutes.into_values().collect(),
        records_waiting: tally.waiting,
        records_lost: tally.lost,
    })
}
