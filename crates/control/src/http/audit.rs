//! The audit log.

use axum::extract::State;
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

/// Read the audit log, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PageQuery),
    responses((status = 200, body = Page<AuditRecord>)))]
async fn list_audit(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<AuditRecord>>> {
    audit::list(&control, &caller, &query).await.map(Json)
}
