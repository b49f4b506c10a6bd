//! What browsers report about the console.

use axum::extract::{Request, State};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use toolyard_types::Code;
use toolyard_types::access::Action;
use toolyard_types::api::activity::{ConsoleReport, ConsoleReportsTaken, ReportKind, SendConsoleReports};
use toolyard_types::api::{Page, PageQuery};
use utoipa_axum::routes;

use super::extract::{self, Json, Query};
use super::guard::{Access, Routes, same_origin};
use crate::app::reports;
use crate::{Caller, Control, ControlError, Result, auth};

/// The largest batch.
const LARGEST_BATCH: usize = 16 * 1024;

pub(super) fn routes() -> Routes {
    Routes::new()
        .guarded(Access::Public, routes!(send_console_reports))
        .guarded(Access::Action(Action::AuditRead), routes!(list_console_reports))
}

/// Report how the console does in this browser: web vitals, that something was used, errors. Never content.
///
/// Signed in or not; at most 16 KiB and 50 reports at once, and at most 60 batches a minute of one session (120 of all
/// who are not signed in). While the feature `console_telemetry` is off nothing is stored. Reports are kept for 30 days,
/// the newest 10,000 of an organization.
#[utoipa::path(post, path = "/api/v1/console/reports", tag = "console", request_body = SendConsoleReports,
    responses((status = 202, body = ConsoleReportsTaken)))]
async fn send_console_reports(
    State(control): State<Control>,
    headers: HeaderMap,
    request: Request,
) -> Result<(StatusCode, Json<ConsoleReportsTaken>)> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        same_origin(&headers, control.options().public_url.as_deref())?;
    }
    let caller = auth::look_again(&control, &headers, None).await.ok();
    let body = extract::read_body(request).await?;
    if body.len() > LARGEST_BATCH {
        return Err(ControlError::problem(
            Code::PayloadTooLarge,
            format!("a batch may have at most {LARGEST_BATCH} bytes"),
        ));
    }
    let batch: SendConsoleReports = extract::parse_with_nul(&body)?;
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let taken = reports::take(&control, caller.as_ref(), batch.reports, user_agent).await?;
    Ok((StatusCode::ACCEPTED, Json(taken)))
}

/// Which reports to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ReportQuery {
    /// How many at most, 1 to 500; 100 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only of this kind.
    kind: Option<ReportKind>,
}

/// List what browsers reported about the console, newest first.
#[utoipa::path(get, path = "/api/v1/console/reports", tag = "console", params(ReportQuery),
    responses((status = 200, body = Page<ConsoleReport>)))]
async fn list_console_reports(
    State(control): State<Control>,
    caller: Caller,
    Query(query): Query<ReportQuery>,
) -> Result<Json<Page<ConsoleReport>>> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    reports::list(&control, &caller, query.kind, &page).await.map(Json)
}
