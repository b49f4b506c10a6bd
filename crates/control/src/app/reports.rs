//! What browsers report about the console: web vitals, that something was used, errors. Never content.
//!
//! Everybody can send this, also before sign-in, where the page may break as well. So everything is bounded: the batch,
//! each text, how many batches a minute, how many reports are kept and for how long, and how many routes the metrics
//! tell apart. Reports of somebody who is not signed in belong to the first organization.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use toolyard_store::OrgTx;
use toolyard_types::api::activity::{ConsoleReport, ConsoleReportsTaken, NewConsoleReport, ReportKind};
use toolyard_types::api::{Page, PageQuery};
use toolyard_types::{Name, OrganizationId, ReportId, Timestamp};

use super::{flags, id_cursor, next_cursor, page_limit};
use crate::fleet::locked;
use crate::{Caller, Control, ControlError, Result};

/// How long reports are kept.
pub(crate) const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most reports of an organization.
const MOST: u32 = 10_000;
const BATCH: usize = 50;
const LONGEST_NAME: usize = 64;
const LONGEST_ROUTE: usize = 128;
const LONGEST_MESSAGE: usize = 500;
const LONGEST_STACK: usize = 4_000;
const LONGEST_USER_AGENT: usize = 200;
const VITALS: &[&str] = &["CLS", "FCP", "INP", "LCP", "TTFB"];
/// Routes that the metrics tell apart; further ones count as `other`.
const ROUTES: usize = 64;

/// Routes that the metrics tell apart so far.
#[derive(Default)]
pub(crate) struct ReportState {
    routes: Mutex<BTreeSet<String>>,
}

impl ReportState {
    /// A route as the metrics name it. Strangers make none of their own.
    fn label(&self, route: &str, signed_in: bool) -> String {
        let mut routes = locked(&self.routes);
        if routes.contains(route) {
            return route.to_owned();
        }
        if !signed_in || routes.len() >= ROUTES {
            return "other".to_owned();
        }
        routes.insert(route.to_owned());
        route.to_owned()
    }
}

pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "toolyard_console_errors_total",
        "Errors that browsers reported, by route of the console."
    );
    metrics::describe_histogram!(
        "toolyard_console_web_vital",
        "Web vitals that browsers reported, by name and route: milliseconds, for CLS a score."
    );
}

/// Stores a batch; nothing while the feature is off.
///
/// # Errors
/// `validation_failed`, or `rate_limited`.
pub(crate) async fn take(
    control: &Control,
    caller: Option<&Caller>,
    reports: Vec<NewConsoleReport>,
    user_agent: &str,
) -> Result<ConsoleReportsTaken> {
    let sender = caller.map(|caller| match caller.session {
        Some(session) => session.to_string(),
        None => caller.actor.to_string(),
    });
    control.auth().reports.attempt(sender.as_deref())?;
    if reports.len() > BATCH {
        return Err(ControlError::field("reports", format!("may be at most {BATCH}")));
    }
    for (number, report) in reports.iter().enumerate() {
        check(number, report)?;
    }
    let (organization, name) = organization(control, caller).await?;
    if !flags::is_on(control, "console_telemetry", organization, &name) {
        return Ok(ConsoleReportsTaken { stored: 0 });
    }
    let now = control.clock().now();
    let reports: Vec<_> = reports.into_iter().map(|report| received(report, now, user_agent)).collect();
    let tx: OrgTx = control.store().org(organization).await?;
    tx.insert_console_reports(&reports, caller.is_none(), MOST).await?;
    tx.commit().await?;
    for report in &reports {
        measure(control, report, caller.is_some());
    }
    Ok(ConsoleReportsTaken { stored: u32::try_from(reports.len()).unwrap_or(u32::MAX) })
}

async fn organization(control: &Control, caller: Option<&Caller>) -> Result<(OrganizationId, Name)> {
    if let Some(caller) = caller {
        return Ok((caller.organization, caller.organization_name.clone()));
    }
    let tx = control.store().system_read("find where reports of strangers belong").await?;
    let first = tx.organizations().await?.into_iter().next();
    let first = first.ok_or_else(|| ControlError::NotFound("an organization".to_owned()))?;
    Ok((first.id, first.name))
}

fn check(number: usize, report: &NewConsoleReport) -> Result<()> {
    let wrong = |field: &str, message: String| Err(ControlError::field(format!("reports[{number}].{field}"), message));
    let plain = |text: &str, longest: usize| {
        !text.is_empty() && text.chars().count() <= longest && !text.chars().any(char::is_control)
    };
    if !plain(&report.name, LONGEST_NAME) {
        return wrong("name", format!("must have 1 to {LONGEST_NAME} characters"));
    }
    if report.kind == ReportKind::WebVital && !VITALS.contains(&report.name.as_str()) {
        return wrong("name", format!("must be one of {}", VITALS.join(", ")));
    }
    if report.kind == ReportKind::WebVital && report.value.is_none_or(|value| !value.is_finite() || value < 0.0) {
        return wrong("value", "must be a number that is not negative".to_owned());
    }
    if !plain(&report.route, LONGEST_ROUTE) || !report.route.starts_with('/') || report.route.contains(['?', '#']) {
        return wrong("route", format!("must be a route's pattern of at most {LONGEST_ROUTE} characters"));
    }
    if !plain(&report.build, LONGEST_NAME) {
        return wrong("build", format!("must have 1 to {LONGEST_NAME} characters"));
    }
    Ok(())
}

fn received(report: NewConsoleReport, now: Timestamp, user_agent: &str) -> ConsoleReport {
    // A NUL is text to JSON and an error to Postgres.
    let cut = |text: &str, longest: usize| text.chars().filter(|c| *c != '\0').take(longest).collect::<String>();
    ConsoleReport {
        id: ReportId::generate(),
        received_at: now,
        at: report.at,
        kind: report.kind,
        name: report.name,
        value: report.value.filter(|value| value.is_finite()),
        route: report.route,
        message: cut(report.message.as_deref().unwrap_or_default(), LONGEST_MESSAGE),
        stack: cut(report.stack.as_deref().unwrap_or_default(), LONGEST_STACK),
        build: report.build,
        user_agent: cut(user_agent, LONGEST_USER_AGENT),
    }
}

fn measure(control: &Control, report: &ConsoleReport, signed_in: bool) {
    let route = control.reports().label(&report.route, signed_in);
    match (report.kind, report.value) {
        (ReportKind::Error, _) => metrics::counter!("toolyard_console_errors_total", "route" => route).increment(1),
        (ReportKind::WebVital, Some(value)) => {
            metrics::histogram!("toolyard_console_web_vital", "name" => report.name.clone(), "route" => route)
                .record(value);
        }
        _ => {}
    }
}

/// Reports, newest first.
pub(crate) async fn list(
    control: &Control,
    caller: &Caller,
    kind: Option<ReportKind>,
    query: &PageQuery,
) -> Result<Page<ConsoleReport>> {
    let limit = page_limit(query)?;
    let tx = control.store().org_read(caller.organization).await?;
    let items = tx.console_reports(kind, id_cursor(query)?, limit + 1).await?;
    Ok(next_cursor(items, limit, |report| report.id.to_string()))
}
