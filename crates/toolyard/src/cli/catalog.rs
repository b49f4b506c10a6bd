//! `toolyard catalog`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::api::catalog::{
    Category, CreateSource, Entry, EntryQuery, EntrySummary, EntryVersionSummary, PublishEntry, Published, RateEntry,
    ReviewEntry, Source, UpdateEntry,
};
use toolyard_types::server_json::{Choice, Input, KINDS, ServerJson};
use toolyard_types::{EntryName, FieldError, Name};

use super::context::{Context, Failure};
use super::output::{self, Format, safe};

/// `toolyard catalog ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Search the catalog.
    Search(SearchArgs),
    /// Show an entry with what it asks for.
    Show {
        /// The entry.
        name: EntryName,
        /// A version; the latest when absent.
        #[arg(long = "entry-version", value_name = "VERSION")]
        version: Option<String>,
    },
    /// List an entry's versions.
    Versions {
        /// The entry.
        name: EntryName,
    },
    /// List the categories.
    Categories,
    /// Publish an entry of one's own, or submit it for review.
    Publish {
        /// A server.json file.
        file: PathBuf,
        /// A category; repeat for several.
        #[arg(long = "category")]
        categories: Vec<String>,
        /// A Markdown file with what people read about it.
        #[arg(long, value_name = "FILE")]
        readme: Option<PathBuf>,
        /// Show it at /v0.1/servers without a key.
        #[arg(long)]
        public: bool,
        /// Only check it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Approve or reject a submitted entry.
    #[command(after_help = "Examples:
  toolyard catalog show com.example/tool --output json   read it; `digest` is the document's
  toolyard catalog review com.example/tool --approve sha256:...
  toolyard catalog review com.example/tool --reject 'no licence'")]
    Review {
        /// The entry.
        name: EntryName,
        /// Approve the document of this digest, which `catalog show` tells, and no other.
        #[arg(long, value_name = "DIGEST", conflicts_with = "reject", required_unless_present = "reject")]
        approve: Option<String>,
        /// Reject it, and why.
        #[arg(long, value_name = "REASON")]
        reject: Option<String>,
    },
    /// Mark an entry verified.
    Verify {
        /// The entry.
        name: EntryName,
        /// Take the mark away.
        #[arg(long)]
        undo: bool,
    },
    /// Rate an entry.
    Rate {
        /// The entry.
        name: EntryName,
        /// 1 to 5.
        #[arg(value_parser = clap::value_parser!(u8).range(1..=5))]
        rating: u8,
    },
    /// Places entries come from.
    #[command(subcommand)]
    Sources(SourcesCommand),
}

/// `toolyard catalog search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Words to look for; everything when absent.
    words: Vec<String>,
    /// Only this category.
    #[arg(long)]
    category: Option<String>,
    /// Only entries that can run so: npm, pypi, oci, remote.
    #[arg(long)]
    kind: Option<String>,
    /// Only from this source.
    #[arg(long)]
    source: Option<String>,
    /// Only verified ones.
    #[arg(long)]
    verified: bool,
    /// relevance, name, updated, deployments or rating.
    #[arg(long)]
    sort: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// `toolyard catalog sources ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// List the sources.
    List,
    /// Add a source.
    #[command(after_help = "Example:
  toolyard catalog sources add internal https://files.example.com/mcp-servers.json --kind file")]
    Add {
        /// Its name.
        name: Name,
        /// Where it is: the registry's base URL, or the file's. Never asked with this Toolyard's API key.
        address: String,
        /// `registry` (the registry API) or `file` (a JSON file).
        #[arg(long, default_value = "registry", value_parser = ["registry", "file"])]
        kind: String,
    },
    /// Sync a source now.
    Sync {
        /// The source.
        name: Name,
    },
    /// Remove a source and its entries.
    Remove {
        /// The source.
        name: Name,
    },
}

/// `toolyard catalog ...`
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let client = &context.client;
    match command {
        Command::Search(args) => search(context, args).await?,
        Command::Show { name, version } => {
            let entry: Entry = client.get_with(&path(&name, ""), &json!({ "version": version })).await?;
            print_entry(context.format, &entry);
        }
        Command::Versions { name } => {
            let versions: Vec<EntryVersionSummary> = client.list(&path(&name, "/versions"), &json!({})).await?;
            output::print_list(context.format, &versions, &["VERSION", "LATEST", "STATUS"], |version| {
                vec![version.version.clone(), if version.latest { "yes" } else { "" }.into(), version.status.clone()]
            });
        }
        Command::Categories => {
            let categories: Vec<Category> = client.list("/catalog/categories", &json!({})).await?;
            output::print_list(context.format, &categories, &["CATEGORY", "ENTRIES"], |category| {
                vec![category.name.clone(), category.entries.to_string()]
            });
        }
        Command::Publish { file, categories, readme, public, dry_run } => {
            let text =
                std::fs::read(&file).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", file.display())))?;
            let server = serde_json::from_slice(&text)
                .map_err(|e| Failure::new(format!("`{}` is not JSON: {e}", file.display())))?;
            if let Some(why) = no_entry(&server) {
                return Err(Failure::new(format!("`{}` is {why}", file.display())));
            }
            let readme = readme
                .map(|file| {
                    std::fs::read_to_string(&file)
                        .map_err(|e| Failure::new(format!("cannot read `{}` as text: {e}", file.display())))
                })
                .transpose()?;
            let body = PublishEntry { server, categories, readme, public, dry_run };
            let published: Published = client.post("/catalog/entries", &body).await?;
            print_published(context.format, &published);
            if !published.validation.errors.is_empty() {
                return Err(Failure::told(format!("`{}` cannot be published as it is", file.display())));
            }
        }
        Command::Review { name, approve, reject } => {
            let body = ReviewEntry { approve: approve.is_some(), reason: reject };
            let path = path(&name, "/review");
            let seen = approve.as_deref();
            print_entry(context.format, &client.send_if_match(reqwest::Method::POST, &path, &body, seen).await?);
        }
        Command::Verify { name, undo } => {
            let body = UpdateEntry { verified: Some(!undo), ..UpdateEntry::default() };
            print_entry(context.format, &client.send(reqwest::Method::PATCH, &path(&name, ""), Some(&body)).await?);
        }
        Command::Rate { name, rating } => {
            let body = RateEntry { rating };
            print_entry(
                context.format,
                &client.send(reqwest::Method::PUT, &path(&name, "/rating"), Some(&body)).await?,
            );
        }
        Command::Sources(command) => sources(context, command).await?,
    }
    Ok(())
}

fn path(name: &EntryName, rest: &str) -> String {
    format!("/catalog/entries/{}{rest}", segment(name.as_str()))
}

/// What a document is that people take for a server.json, and what to do with it.
fn no_entry(document: &Value) -> Option<&'static str> {
    if document.get("name").is_some() {
        return None;
    }
    let is_object = |member: &str| document.get(member).is_some_and(Value::is_object);
    if ["mcpServers", "mcp_servers", "context_servers", "servers"].iter().any(|member| is_object(member)) {
        return Some(
            "the configuration of an MCP client, which says how one client starts servers, and no server.json; find each of its \
             servers with `toolyard catalog search`, register one that is a URL with `toolyard deploy --remote URL --name NAME`, and \
             write a server.json (name, description, version, packages) for one that is neither",
        );
    }
    if document.is_array() || document.get("servers").is_some_and(Value::is_array) {
        return Some(
            "a list, and a server.json is one entry; publish each by itself, or serve the file and add it with \
             `toolyard catalog sources add NAME URL --kind file`",
        );
    }
    None
}

async fn search(context: &Context, args: SearchArgs) -> Result<(), Failure> {
    let query = EntryQuery {
        search: (!args.words.is_empty()).then(|| args.words.join(" ")),
        category: args.category,
        kind: args.kind,
        source: args.source,
        verified: args.verified.then_some(true),
        sort: args.sort,
        ..EntryQuery::default()
    };
    let page = context.first::<EntrySummary>("/catalog/entries", &query, args.limit).await?;
    output::print_first(context.format, &page, &["NAME", "VERSION", "RUNS AS", "DESCRIPTION"], |entry| {
        let text: String = entry.description.chars().take(70).collect();
        vec![entry.name.to_string(), entry.version.clone(), entry.kinds.join(","), text]
    });
    Ok(())
}

async fn sources(context: &Context, command: SourcesCommand) -> Result<(), Failure> {
    let client = &context.client;
    let source: Source = match command {
        SourcesCommand::List => {
            let sources: Vec<Source> = client.list("/catalog/sources", &json!({})).await?;
            output::print_list(context.format, &sources, &["NAME", "KIND", "ENTRIES", "SYNC", "MESSAGE"], |source| {
                vec![
                    source.name.to_string(),
                    source.kind.clone(),
                    source.entries.to_string(),
                    source.sync_state.clone(),
                    source.sync_message.clone(),
                ]
            });
            return Ok(());
        }
        SourcesCommand::Add { name, address, kind } => {
            client.post("/catalog/sources", &CreateSource { name, kind, url: address }).await?
        }
        SourcesCommand::Sync { name } => {
            let path = format!("/catalog/sources/{}/sync", segment(name.as_str()));
            let source: Source = client.post(&path, &json!({})).await?;
            if source.sync_state == "failed" {
                return Err(Failure::new(format!("syncing `{name}` failed: {}", source.sync_message)));
            }
            source
        }
        SourcesCommand::Remove { name } => {
            let path = format!("/catalog/sources/{}", segment(name.as_str()));
            let _: Value = client.send(reqwest::Method::DELETE, &path, None::<&()>).await?;
            output::print_fields(
                context.format,
                &json!({ "name": name, "state": "removed" }),
                &[("removed", name.to_string())],
            );
            return Ok(());
        }
    };
    let fields =
        [("name", source.name.to_string()), ("sync", format!("{} {}", source.sync_state, source.sync_message))];
    output::print_fields(context.format, &source, &fields);
    Ok(())
}

fn print_entry(format: Format, entry: &Entry) {
    let summary = &entry.summary;
    let choices = choices(&entry.server);
    let mut fields = vec![
        ("name", summary.name.to_string()),
        ("title", summary.title.clone().unwrap_or_default()),
        ("description", summary.description.clone()),
        ("version", entry.server.version.clone()),
        ("digest", entry.digest.clone()),
        ("review", entry.review.clone()),
        ("reason", entry.review_reason.clone().unwrap_or_default()),
        ("source", summary.source.clone()),
        ("verified by", summary.verified_by.clone().unwrap_or_default()),
        ("runs as", summary.kinds.join(", ")),
        ("categories", summary.categories.join(", ")),
        ("website", entry.server.website_url.clone().unwrap_or_default()),
    ];
    fields.extend(choices.iter().map(|(label, text)| (label.as_str(), text.clone())));
    output::print_fields(format, entry, &fields);
}

/// What an entry can be deployed as, by the words of `--package`, each with the inputs that `--input` and
/// `--credential` take then.
fn choices(server: &ServerJson) -> Vec<(String, String)> {
    let choices = KINDS.into_iter().filter_map(|kind| Some((kind, server.choice(Some(kind))?)));
    choices
        .flat_map(|(kind, choice)| [(kind.to_owned(), target(choice)), (format!("{kind} inputs"), inputs(choice))])
        .collect()
}

/// The package with its version, or where the remote server is.
fn target(choice: Choice<'_>) -> String {
    match choice {
        Choice::Package(package) => match &package.version {
            Some(version) => safe(&format!("{} {version}", package.identifier)),
            None => safe(&package.identifier),
        },
        Choice::Remote(remote) => safe(remote.url.as_deref().unwrap_or_default()),
    }
}

/// One line for each input.
fn inputs(choice: Choice<'_>) -> String {
    // An address is not whole without its variables.
    let in_address = |name: &str| matches!(choice, Choice::Remote(remote) if remote.variables.contains_key(name));
    let line = |(name, input): (&str, &Input)| {
        let is_required = input.is_required || (in_address(name) && input.default.is_none());
        let required = if is_required { ", required" } else { "" };
        let secret = if input.is_secret { ", secret" } else { "" };
        let text = input.description.as_deref().map(|text| format!(": {}", safe(text))).unwrap_or_default();
        format!("{}{required}{secret}{text}", safe(name))
    };
    choice.inputs().into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn print_published(format: Format, published: &Published) {
    let lines = |fields: &[FieldError]| -> String {
        fields.iter().map(|field| format!("{}: {}", field.field, field.message)).collect::<Vec<_>>().join("; ")
    };
    let state = published.entry.as_ref().map_or("checked only".into(), |entry| entry.review.clone());
    output::print_fields(
        format,
        published,
        &[
            ("state", state),
            ("errors", lines(&published.validation.errors)),
            ("warnings", lines(&published.validation.warnings)),
            ("advice", lines(&published.validation.advice)),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_configuration_and_a_list_are_told_from_an_entry() {
        for client in ["mcpServers", "servers", "context_servers"] {
            let told = no_entry(&json!({ client: { "time": { "command": "uvx" } } })).unwrap_or_default();
            assert!(
                told.contains("configuration of an MCP client") && told.contains("catalog search"),
                "{client}: {told}"
            );
        }
        for list in [json!({ "servers": [] }), json!([{ "name": "a/b" }])] {
            assert!(no_entry(&list).is_some_and(|told| told.contains("catalog sources add")), "{list}");
        }
        for entry in [json!({ "name": "a/b", "servers": {} }), json!({ "packages": [] }), json!("text")] {
            assert_eq!(no_entry(&entry), None, "{entry}");
        }
    }

    #[test]
    fn each_way_to_run_an_entry_is_shown_with_its_own_inputs() {
        let server = json!({"name": "a/b", "packages": [
            {"registryType": "npm", "identifier": "@a/b", "version": "1.2.3",
                "environmentVariables": [
                    {"name": "AUTH", "value": "Bearer {token}", "variables":
                        {"token": {"isSecret": true, "isRequired": true, "description": "From\nthe settings."}}}],
                "packageArguments": [{"type": "named", "name": "--root=", "format": "filepath"}]},
            {"registryType": "npm", "identifier": "second", "environmentVariables": [{"name": "SECOND"}]},
            {"registryType": "nuget", "identifier": "n", "environmentVariables": [{"name": "NUGET"}]},
        ], "remotes": [{"type": "streamable-http", "url": "https://{tenant}.example.test/mcp",
            "variables": {"tenant": {}}}]});
        let shown = choices(&serde_json::from_value(server).expect("a document"));
        let shown: Vec<_> = shown.iter().map(|(label, text)| (label.as_str(), text.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("npm", "@a/b 1.2.3"),
                ("npm inputs", "--root\ntoken, required, secret: From\\nthe settings."),
                ("remote", "https://{tenant}.example.test/mcp"),
                ("remote inputs", "tenant, required"),
            ]
        );
    }
}
