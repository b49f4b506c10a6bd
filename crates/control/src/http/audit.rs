//! The audit log.

use axum::extract::State;
use serde::Deserialize;
use toolyard_store::AuditFilter;
use toolyard_types::Timestamp;
use toolyard_types::access::Action;
use toolyard_types::api::identity::AuditRecord;
use toolyard_types::api::{Page, PageQuery};
use utoipa_axum::routes;

use super::extract::{Json, Query};
use super::guard::{Access, Routes};
use crate::app::audit;
use crate::{Caller, Control, Result};

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::Action(Action::AuditRead), routes!(list_audit))
}

/// Which lines of the audit log.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// How many at most, 1 to 500; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only by this one: `user:ID`, `api_key:ID`, or as shown: an e-mail address or a key's name.
    actor: Option<String>,
    /// Only this action, such as `server.create`, or `credential:use` of what was refused; a noun alone, such as `server`,
    /// for everything done to it.
    action: Option<String>,
    /// Only about this, such as `server/everything`.
    target: Option<String>,
    /// Only what was `done`, or what was `refused`.
    #[param(inline)]
    outcome: Option<AuditOutcome>,
    /// Only from then on.
    since: Option<Timestamp>,
    /// Only before then.
    until: Option<Timestamp>,
}

/// How something in the audit log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

/// Read the audit log, newest first. A narrowed key sees only lines about its own servers and toolsets.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditRecord>)))]
async fn list_audit(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditRecord>>> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        except: None,
        target: query.target,
        done: query.outcome.map(|outcome| outcome == AuditOutcome::Done),
        since: query.since,
        until: query.until,
        within: None,
    };
    audit::list(&control, &caller, filter, &page).await.map(Json)
}
