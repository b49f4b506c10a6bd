//! `toolyard calls`: the records of calls through the gateway.

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use toolyard_types::api::activity::Call;
use toolyard_types::snapshot::CallOutcome;
use toolyard_types::{ApiKeyId, Name, Timestamp};

use super::context::{Context, Failure};
use super::output;

/// `toolyard calls`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard calls --server github --outcome upstream_failed
  toolyard calls --request-id 0f3c9a7be1d24c55

Outcomes: ok, tool_error, server_error, refused, server_not_ready, upstream_failed, timeout, cancelled. A client finds the
request id in the header `x-request-id` of the answer and in `error.data.request_id`; what it did not get through is in
Toolyard's log under `request.id`, with the cause.")]
pub(crate) struct CallsArgs {
    /// Only of this server, directly or through a toolset.
    #[arg(long)]
    server: Option<Name>,
    /// Only through this toolset.
    #[arg(long)]
    toolset: Option<Name>,
    /// Only with this API key, by id.
    #[arg(long, value_name = "ID")]
    key: Option<ApiKeyId>,
    /// Only those that ended so.
    #[arg(
        long,
        value_parser = PossibleValuesParser::new(CallOutcome::ALL.map(CallOutcome::as_str)),
        hide_possible_values = true
    )]
    outcome: Option<String>,
    /// Only of this request.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Only from then on, such as 2026-11-22T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    since: Option<Timestamp>,
    /// How many at most, newest first.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// `toolyard calls`.
pub(crate) async fn list(context: &Context, args: CallsArgs) -> Result<(), Failure> {
    let query = json!({
        "server": args.server, "toolset": args.toolset, "key": args.key, "outcome": args.outcome,
        "request_id": args.request_id, "since": args.since,
    });
    let page = context.first::<Call>("/calls", &query, args.limit).await?;
    let heads = ["AT", "WHO", "SERVER", "METHOD", "TARGET", "OUTCOME", "MS", "REQUEST ID"];
    output::print_first(context.format, &page, &heads, |call| {
        let record = &call.record;
        let name = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
        vec![
            record.at.to_string(),
            call.actor_display.clone().unwrap_or_else(|| record.actor.clone()),
            name(&call.server_name).or(name(&call.toolset_name)).unwrap_or_default(),
            record.method.clone(),
            record.target.clone(),
            record.outcome.as_str().to_owned(),
            format!("{:.1}", std::time::Duration::from_micros(record.duration_us).as_secs_f64() * 1000.0),
            record.request_id.clone(),
        ]
    });
    Ok(())
}
