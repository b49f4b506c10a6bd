//! Call records.

use axum::extract::State;
use toolyard_types::access::Action;
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::snapshot::CallRecord;
use utoipa_axum::routes;

use super::extract::{Json, Query};
use super::guard::{Access, Routes};
use crate::{Caller, Control, Result, calls};

pub(super) fn routes() -> Routes {
    Routes::new().guarded(Access::Action(Action::AuditRead), routes!(list_calls))
}

/// List the calls that went through the gateway, newest first.
#[utoipa::path(get, path = "/api/v1/calls", tag = "calls", params(PageQuery),
    responses((status = 200, body = Page<CallRecord>)))]
async fn list_calls(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<CallRecord>>> {
    calls::list(&control, &caller, &query).await.map(Json)
}
