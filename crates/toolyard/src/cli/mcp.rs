//! `toolyard tools` and `toolyard call`: through the gateway, as any client.

use clap::Args;
use serde_json::{Value, json};
use toolyard_client::{ApiError, ToolCall, segment};
use toolyard_types::api::servers::{Server, Toolset};
use toolyard_types::{Code, Name};

use super::context::{Context, Failure};
use super::output::{self, Format, cell, safe};

/// `toolyard tools`.
#[derive(Debug, Args)]
pub(crate) struct ToolsArgs {
    /// A server or a toolset.
    name: Name,
}

/// `toolyard call`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard call time get_current_time '{\"timezone\":\"UTC\"}'
  toolyard call all everything__echo '{\"message\":\"hi\"}' --output json")]
pub(crate) struct CallArgs {
    /// A server or a toolset.
    name: Name,
    /// The tool; in a toolset `{server}__{tool}`.
    tool: String,
    /// Its arguments, a JSON object.
    #[arg(default_value = "{}")]
    arguments: String,
}

/// `toolyard tools`.
pub(crate) async fn tools(context: &Context, args: ToolsArgs) -> Result<(), Failure> {
    let path = mcp_path(context, &args.name).await?;
    let tools = context.client.list_tools(&path).await?;
    output::print_list(context.format, &tools, &["TOOL", "DESCRIPTION"], |tool| {
        let text = cell(&tool["description"]);
        let line = text.lines().next().unwrap_or_default();
        vec![cell(&tool["name"]), line.chars().take(90).collect()]
    });
    Ok(())
}

/// `toolyard call`.
pub(crate) async fn call(context: &Context, args: CallArgs) -> Result<(), Failure> {
    let arguments: Value = serde_json::from_str(&args.arguments)
        .map_err(|error| Failure::new(format!("the arguments are not JSON: {error}")))?;
    if !arguments.is_object() {
        return Err(Failure::new("the arguments must be a JSON object, such as '{\"message\":\"hi\"}'"));
    }
    let path = mcp_path(context, &args.name).await?;
    let call = ToolCall { name: args.tool, arguments };
    let format = context.format;
    let result = context
        .client
        .call_tool(&path, &call, |message| {
            if message["method"] == "notifications/progress" {
                let params = &message["params"];
                output::progress(format, &format!("{} {}", cell(&params["progress"]), cell(&params["message"])));
            }
        })
        .await?;
    print_result(format, &result);
    if result["isError"] == json!(true) {
        return Err(Failure::new(format!("tool `{}` answered an error", call.name)));
    }
    Ok(())
}

fn print_result(format: Format, result: &Value) {
    if format == Format::Json {
        return output::print_json(result);
    }
    for block in result["content"].as_array().into_iter().flatten() {
        match block["text"].as_str() {
            // Line ends are the tool's own; everything else that could steer a terminal is escaped.
            Some(text) => text.lines().for_each(|line| output::print_line(&safe(line))),
            None => output::print_line(&format!("[{} {}]", cell(&block["type"]), cell(&block["mimeType"]))),
        }
    }
}

/// Servers and toolsets share one name space, so a name means one of the two.
pub(crate) async fn mcp_path(context: &Context, name: &Name) -> Result<String, Failure> {
    let segment = segment(name.as_str());
    match context.client.get::<Toolset>(&format!("/toolsets/{segment}")).await {
        Ok(toolset) => Ok(toolset.mcp_path),
        Err(ApiError::Problem(problem)) if problem.code == Code::NotFound => {
            let server: Server = context.client.get(&format!("/servers/{segment}")).await?;
            Ok(server.mcp_path)
        }
        Err(error) => Err(error.into()),
    }
}
