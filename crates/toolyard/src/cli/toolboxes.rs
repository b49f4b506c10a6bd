//! `toolyard toolboxes`.

use clap::Subcommand;
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::Name;
use toolyard_types::api::Page;
use toolyard_types::api::servers::{EnrollToolbox, EnrolledToolbox, Toolbox};

use super::context::{Context, Failure};
use super::output;

/// `toolyard toolboxes ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List toolboxes.
    List,
    /// Show a toolbox and what it can enforce.
    Show {
        /// The toolbox.
        name: Name,
    },
    /// Make a toolbox and print the command that starts its agent.
    Enroll {
        /// The toolbox.
        name: Name,
    },
    /// Remove a toolbox that runs nothing.
    Remove {
        /// The toolbox.
        name: Name,
    },
}

/// `toolyard toolboxes ...`
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        Command::List => {
            let page: Page<Toolbox> = client.get("/toolboxes").await?;
            output::print_list(
                context.format,
                &page.items,
                &["NAME", "STATE", "ENGINE", "INSTANCES", "LAST SEEN"],
                |toolbox| {
                    vec![
                        toolbox.name.to_string(),
                        toolbox.state.to_string(),
                        toolbox.report.engine.clone(),
                        toolbox.instances.to_string(),
                        toolbox.last_seen_at.map_or("never".into(), |at| at.to_string()),
                    ]
                },
            );
        }
        Command::Show { name } => print(context, &client.get(&path(&name)).await?),
        Command::Enroll { name } => {
            let enrolled: EnrolledToolbox = client.post("/toolboxes", &EnrollToolbox { name, labels: toolyard_types::Labels::default(), expires_seconds: None }).await?;
            let fields = [("token", enrolled.token.clone()), ("command", enrolled.command.clone())];
            output::print_fields(context.format, &enrolled, &fields);
        }
        Command::Remove { name } => {
            let _: Value = client.send(reqwest::Method::DELETE, &path(&name), None::<&()>).await?;
            output::print_fields(
                context.format,
                &json!({ "name": name, "state": "removed" }),
                &[("removed", name.to_string())],
            );
        }
    }
    Ok(())
}

fn path(name: &Name) -> String {
    format!("/toolboxes/{}", segment(name.as_str()))
}

fn print(context: &Context, toolbox: &Toolbox) {
    let mut fields = vec![
        ("name", toolbox.name.to_string()),
        ("state", toolbox.state.to_string()),
        ("reason", format!("{} {}", toolbox.reason, toolbox.message)),
        ("engine", toolbox.report.engine.clone()),
        ("platform", toolbox.report.platform.clone()),
        ("instances", toolbox.instances.to_string()),
    ];
    for (protection, enforcement) in &toolbox.report.enforcement {
        let word = if enforcement.enforced { "enforced" } else { "NOT enforced" };
        fields.push((protection, format!("{word}: {}", enforcement.detail)));
    }
    output::print_fields(context.format, toolbox, &fields);
}
