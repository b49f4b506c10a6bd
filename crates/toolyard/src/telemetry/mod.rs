//! Logs and metrics of the process.

mod json;

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings};

/// Upper bounds of duration histograms, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What is logged, as the `log` setting says.
///
/// # Errors
/// When it is no filter.
pub(crate) fn filter(log: &str) -> Result<EnvFilter, ParseError> {
    // Migrations are only of interest when one fails; a filter that names them says otherwise.
    EnvFilter::try_new(format!("sea_orm_migration=warn,sqlx::postgres::notice=warn,{log}"))
}

/// Starts logging to standard error. Standard output is for what a command answers.
///
/// # Errors
/// When the `log` setting is no filter; the text says so without a panic.
pub(crate) fn start_logs(settings: &Settings) -> Result<(), String> {
    let filter = filter(&settings.log).map_err(|error| format!("setting `log`: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // It would tell on standard error that it cannot write to standard error, and panic.
    let layer = layer.log_internal_errors(false);
    let started = match settings.log_format {
        LogFormat::Json => registry.with(layer.fmt_fields(JsonFields::new()).event_format(json::Json)).try_init(),
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// Starts collecting metrics; the handle renders them in Prometheus' text format.
///
/// # Errors
/// When a recorder is there already.
pub(crate) fn start_metrics() -> Result<PrometheusHandle, String> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
        .map_err(|error| error.to_string())?;
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    metrics::describe_gauge!("toolyard_build_info", "Always 1; the label has the version.");
    metrics::gauge!("toolyard_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Sorts the samples of histograms into their buckets, until dropped. A sample is kept as it is until then: where nobody
/// reads the metrics, a million calls would be more than 15 MB.
pub(crate) async fn keep_sorted(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        let metrics = metrics.clone();
        let _ = tokio::task::spawn_blocking(move || metrics.run_upkeep()).await;
    }
}
