//! `toolyard toolsets`.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::Name;
use toolyard_types::api::servers::{PutToolset, Server, Toolset};
use toolyard_types::snapshot::{ToolOverride, ToolsetMember};
use toolyard_types::state::Phase;

use super::access::confirm;
use super::context::{Context, Failure};
use super::output;

/// `toolyard toolsets ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List toolsets.
    List,
    /// Show a toolset.
    Show {
        /// The toolset.
        name: Name,
    },
    /// Make a toolset.
    #[command(after_help = "Examples:
  toolyard toolsets create all --servers everything,time
  toolyard toolsets create safe --servers time --tool everything=echo --tool everything=add
  toolyard toolsets create clock --servers time --rename time/get_current_time=now")]
    Create(Members),
    /// Replace a toolset's members.
    Update(Members),
    /// Remove a toolset; its servers stay.
    Delete {
        /// The toolset.
        name: Name,
        /// Do not ask; without a terminal nobody is asked.
        #[arg(long)]
        yes: bool,
    },
}

/// A toolset's contents.
#[derive(Debug, Args)]
pub(crate) struct Members {
    /// The toolset.
    name: Name,
    /// Servers with all their tools, separated by commas.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Name>,
    /// One tool of a server: SERVER=TOOL; repeat for several.
    #[arg(long = "tool", value_name = "SERVER=TOOL", value_parser = super::name_value)]
    tools: Vec<(String, String)>,
    /// Another name for a tool: SERVER/TOOL=NAME; repeat for several.
    #[arg(long = "rename", value_name = "SERVER/TOOL=NAME", value_parser = super::name_value)]
    renamed: Vec<(String, String)>,
    /// Another description for a tool: SERVER/TOOL=TEXT; repeat for several.
    #[arg(long = "describe", value_name = "SERVER/TOOL=TEXT", value_parser = super::name_value)]
    described: Vec<(String, String)>,
    /// Shown to clients.
    #[arg(long, default_value = "")]
    description: String,
}

/// What is said of `SERVER/TOOL`, whose server must be a member.
fn overridden<'a>(members: &'a mut [ToolsetMember], tool: &str) -> Result<&'a mut ToolOverride, Failure> {
    let (server, tool) =
        tool.split_once('/').ok_or_else(|| Failure::new(format!("`{tool}` is not SERVER/TOOL, such as time/now")))?;
    let member = members.iter_mut().find(|member| member.server.as_str() == server);
    let member = member.ok_or_else(|| Failure::new(format!("server `{server}` is not in the toolset")))?;
    Ok(member.overrides.entry(tool.to_owned()).or_default())
}

impl Members {
    fn body(self) -> Result<PutToolset, Failure> {
        let mut members: Vec<ToolsetMember> = self.servers.into_iter().map(ToolsetMember::whole).collect();
        for (server, tool) in self.tools {
            let server = Name::new(server).map_err(|error| Failure::new(error.to_string()))?;
            match members.iter_mut().find(|member| member.server == server) {
                Some(member) => member.tools.get_or_insert_default().push(tool),
                None => members.push(ToolsetMember { tools: Some(vec![tool]), ..ToolsetMember::whole(server) }),
            }
        }
        for (tool, name) in self.renamed {
            overridden(&mut members, &tool)?.name = Some(name);
        }
        for (tool, description) in self.described {
            overridden(&mut members, &tool)?.description = Some(description);
        }
        Ok(PutToolset { name: self.name, description: self.description, members })
    }
}

/// `toolyard toolsets ...`
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        Command::List => {
            let toolsets: Vec<Toolset> = client.list("/toolsets", &json!({})).await?;
            output::print_list(context.format, &toolsets, &["NAME", "SERVERS", "MCP PATH"], |toolset| {
                vec![toolset.name.to_string(), servers(toolset), toolset.mcp_path.clone()]
            });
        }
        Command::Show { name } => print(context, &client.get(&path(&name)).await?),
        Command::Create(members) => {
            let toolset = client.post("/toolsets", &members.body()?).await?;
            tell_missing_tools(context, &toolset).await;
            print(context, &toolset);
        }
        Command::Update(members) => {
            let body = members.body()?;
            let toolset = client.send(reqwest::Method::PUT, &path(&body.name), Some(&body)).await?;
            tell_missing_tools(context, &toolset).await;
            print(context, &toolset);
        }
        Command::Delete { name, yes } => {
            if !yes && std::io::stdin().is_terminal() {
                // Nobody is asked about a name that was mistyped.
                let toolset: Toolset = client.get(&path(&name)).await?;
                eprintln!(
                    "toolset `{}` is removed, and clients that are connected to it get nothing more",
                    toolset.name
                );
                confirm()?;
            }
            let _: Value = client.send(reqwest::Method::DELETE, &path(&name), None::<&()>).await?;
            output::print_fields(
                context.format,
                &json!({ "name": name, "state": "deleted" }),
                &[("deleted", name.to_string())],
            );
        }
    }
    Ok(())
}

/// Says, on standard error, which tools that were named their servers do not list. What is asked of servers that do not
/// serve, or that this key may not call, stays open.
async fn tell_missing_tools(context: &Context, toolset: &Toolset) {
    for member in toolset.members.iter().filter(|member| !named_tools(member).is_empty()) {
        let server_path = format!("/servers/{}", segment(member.server.as_str()));
        let Ok(server) = context.client.get::<Server>(&server_path).await else { continue };
        if server.phase != Phase::Ready {
            continue;
        }
        let Ok(listed) = context.client.list_tools(&server.mcp_path).await else { continue };
        let listed: BTreeSet<&str> = listed.iter().filter_map(|tool| tool["name"].as_str()).collect();
        for tool in named_tools(member).difference(&listed) {
            let tool = output::safe(tool);
            eprintln!(
                "warning: server `{0}` lists no tool `{tool}`; `toolyard tools {0}` shows those it has",
                member.server
            );
        }
    }
}

/// The tools of a member that somebody named: chosen, named anew or described anew.
fn named_tools(member: &ToolsetMember) -> BTreeSet<&str> {
    member.tools.iter().flatten().chain(member.overrides.keys()).map(String::as_str).collect()
}

fn path(name: &Name) -> String {
    format!("/toolsets/{}", segment(name.as_str()))
}

fn servers(toolset: &Toolset) -> String {
    let member = |member: &ToolsetMember| match &member.tools {
        Some(tools) => format!("{} ({})", member.server, tools.join(" ")),
        None => member.server.to_string(),
    };
    toolset.members.iter().map(member).collect::<Vec<_>>().join(", ")
}

fn print(context: &Context, toolset: &Toolset) {
    let fields = [
        ("name", toolset.name.to_string()),
        ("description", toolset.description.clone()),
        ("servers", servers(toolset)),
        ("MCP URL", context.link(&toolset.mcp_path)),
    ];
    output::print_fields(context.format, toolset, &fields);
}
