//! `toolyard tools` and `toolyard call`: through the gateway, as any client.

use clap::Args;
use serde_json::{Value, json};
use toolyard_client::{ApiError, McpError, ToolCall, segment};
use toolyard_types::api::identity::Session;
use toolyard_types::api::servers::{Server, Toolset};
use toolyard_types::{Code, Name};

use super::context::{Context, Failure};
use super::output::{self, Format, cell, safe};

/// What the gateway answers where nothing is served to this key: a status, nothing of JSON-RPC.
const NOT_THERE: i64 = 404;

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
    #[arg(default_value = "{}", value_parser = object)]
    arguments: Value,
}

/// A JSON object, as an argument.
fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("must be a JSON object, such as '{\"message\":\"hi\"}'".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// `toolyard tools`.
pub(crate) async fn tools(context: &Context, args: ToolsArgs) -> Result<(), Failure> {
    let paths = mcp_paths(context, &args.name).await?;
    let tools = first(&paths, async |path| context.client.list_tools(path).await).await?;
    output::print_list(context.format, &tools, &["TOOL", "DESCRIPTION"], |tool| {
        let text = cell(&tool["description"]);
        let line = text.lines().next().unwrap_or_default();
        vec![cell(&tool["name"]), line.chars().take(90).collect()]
    });
    Ok(())
}

/// `toolyard call`.
pub(crate) async fn call(context: &Context, args: CallArgs) -> Result<(), Failure> {
    let paths = mcp_paths(context, &args.name).await?;
    let call = ToolCall { name: args.tool, arguments: args.arguments };
    let format = context.format;
    let show = |message: &Value| {
        if message["method"] == "notifications/progress" {
            let params = &message["params"];
            output::progress(format, &format!("{} {}", cell(&params["progress"]), cell(&params["message"])));
        }
    };
    let result = first(&paths, async |path| context.client.call_tool(path, &call, show).await).await?;
    print_result(format, &result);
    if result["isError"] == json!(true) {
        return Err(Failure::told(format!("tool `{}` answered an error", call.name)));
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

/// The MCP path of a server or toolset.
pub(crate) async fn mcp_path(context: &Context, name: &Name) -> Result<String, Failure> {
    let paths = mcp_paths(context, name).await?;
    match paths.as_slice() {
        [path] => Ok(path.clone()),
        _ => first(&paths, async |path| context.client.list_tools(path).await.map(|_| path.to_owned())).await,
    }
}

/// Where a name may be served: servers and toolsets share one name space, so it means one of the two. A key that may call
/// need not be allowed to look, and while the database is away nobody can; then the gateway says which of the two it is.
async fn mcp_paths(context: &Context, name: &Name) -> Result<Vec<String>, Failure> {
    let segment = segment(name.as_str());
    let found = match context.client.get::<Toolset>(&format!("/toolsets/{segment}")).await {
        Err(ApiError::Problem(problem)) if problem.code == Code::NotFound => {
            let server = context.client.get::<Server>(&format!("/servers/{segment}")).await;
            server.map(|server| server.mcp_path)
        }
        toolset => toolset.map(|toolset| toolset.mcp_path),
    };
    match found {
        Err(ApiError::Problem(problem)) if matches!(problem.code, Code::Forbidden | Code::StoreUnavailable) => {
            let session: Session = context.client.get("/session").await?;
            let at = |kind: &str| format!("/mcp/{}/{kind}/{name}", session.organization);
            Ok(vec![at("servers"), at("toolsets")])
        }
        found => Ok(vec![found?]),
    }
}

/// What is answered at the first of the paths that is there.
async fn first<T>(paths: &[String], ask: impl AsyncFn(&str) -> Result<T, McpError>) -> Result<T, Failure> {
    let mut missing = None;
    for path in paths {
        match ask(path).await {
            Err(error @ McpError::Refused { code: NOT_THERE, .. }) => missing = Some(error),
            answered => return Ok(answered?),
        }
    }
    Err(missing.expect("a name may be served somewhere").into())
}
