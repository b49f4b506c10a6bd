//! Call records, and what is made of them: metrics and the overview.

use axum::extract::State;
use serde::Deserialize;
use toolyard_types::access::{Action, Actor};
use toolyard_types::api::activity::{Call, MetricsWindow, Overview, ServerMetrics};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::snapshot::CallOutcome;
use toolyard_types::{ApiKeyId, Name, Timestamp, UserId};
use utoipa_axum::routes;

use super::extract::{Json, Path, Query};
use super::guard::{Access, Routes};
use crate::app::{metrics, overview};
use crate::calls::CallsWanted;
use crate::{Caller, Control, ControlError, Result, calls};

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Action(Action::AuditRead), routes!(list_calls))
        .guarded(Access::SignedIn, routes!(get_overview))
        .guarded(Access::Action(Action::ServerRead), routes!(get_server_metrics))
}

/// Which calls to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CallQuery {
    /// How many at most, 1 to 500; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only of this server, directly or through a toolset.
    server: Option<Name>,
    /// Only through this toolset.
    toolset: Option<Name>,
    /// Only with this API key, by id.
    key: Option<ApiKeyId>,
    /// Only by this member, by id: calls from the console's playground.
    member: Option<UserId>,
    /// Only those that ended so.
    outcome: Option<CallOutcome>,
    /// Only of the request with this id, which every answer has in its header `x-request-id`. No index helps: give `since`
    /// too where there are very many calls.
    request_id: Option<String>,
    /// Only from then on.
    since: Option<Timestamp>,
}

/// List the calls that went through the gateway, newest first. A narrowed key sees only those of its own servers and
/// toolsets.
#[utoipa::path(get, path = "/api/v1/calls", tag = "calls", params(CallQuery),
    responses((status = 200, body = Page<Call>)))]
async fn list_calls(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<CallQuery>,
) -> Result<Json<Page<Call>>> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let actor = match (query.key, query.member) {
        (Some(key), None) => Some(Actor::ApiKey(key).to_string()),
        (None, member) => member.map(|member| Actor::User(member).to_string()),
        (Some(_), Some(_)) => return Err(ControlError::field("member", "ask about a key or a member, not both")),
    };
    let (server, toolset) = (query.server, query.toolset);
    let (outcome, request_id, since) = (query.outcome, query.request_id, query.since);
    let wanted = CallsWanted { server, toolset, actor, outcome, request_id, since };
    calls::list(&control, &caller, &wanted, &page).await.map(Json)
}

/// See everything at a glance: what runs, what is broken and why, what happened, what could be next.
///
/// Read for everybody who is signed in; each part is `null` for those who may not read it. Made of a few queries,
/// however many servers there are.
#[utoipa::path(get, path = "/api/v1/overview", tag = "overview", responses((status = 200, body = Overview)))]
async fn get_overview(State(control): State<Control>, caller: Caller) -> Result<Json<Overview>> {
    overview::get(&control, &caller).await.map(Json)
}

/// Which metrics.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MetricsQuery {
    /// How far back: `15m`, `1h`, `24h` or `7d`; `1h` when absent.
    window: Option<MetricsWindow>,
}

/// See what a server did and used: calls with how long they took, memory and processor.
///
/// Calls come from their records. What instances use comes from their toolboxes' agents; it is kept in memory for an
/// hour, a sample every 15 seconds or so, and forgotten by a restart of Toolyard: `since` of an instance says from when on
/// there are samples.
#[utoipa::path(get, path = "/api/v1/servers/{name}/metrics", tag = "servers", params(("name" = Name, Path), MetricsQuery),
    responses((status = 200, body = ServerMetrics)))]
async fn get_server_metrics(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<Name>,
    Query(query): Query<MetricsQuery>,
) -> Result<Json<ServerMetrics>> {
    metrics::of_server(&control, &caller, &name, query.window.unwrap_or_default()).await.map(Json)
}
