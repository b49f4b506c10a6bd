//! `toolyard catalog`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toolyard_client::segment;
use toolyard_types::api::Page;
use toolyard_types::api::catalog::{
    Category, CreateSource, Entry, EntryQuery, EntrySummary, EntryVersionSummary, PublishEntry, Published, RateEntry,
    ReviewEntry, Source, UpdateEntry,
};
use toolyard_types::server_json::Input;
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
    #[arg(long, default_value_t = 50)]
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
            let page: Page<EntryVersionSummary> = client.get(&path(&name, "/versions")).await?;
            output::print_list(context.format, &page.items, &["VERSION", "LATEST", "STATUS"], |version| {
                vec![version.version.clone(), if version.latest { "yes" } else { "" }.into(), version.status.clone()]
            });
        }
        Command::Categories => {
            let page: Page<Category> = client.get("/catalog/categories").await?;
            output::print_list(context.format, &page.items, &["CATEGORY", "ENTRIES"], |category| {
                vec![category.name.clone(), category.entries.to_string()]
            });
        }
        Command::Publish { file, categories, readme, public, dry_run } => {
            let text =
                std::fs::read(&file).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", file.display())))?;
            let server = serde_json::from_slice(&text)
                .map_err(|e| Failure::new(format!("`{}` is not JSON: {e}", file.display())))?;
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
                return Err(Failure::new(format!("`{}` cannot be published as it is", file.display())));
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

async fn search(context: &Context, args: SearchArgs) -> Result<(), Failure> {
    let query = EntryQuery {
        search: (!args.words.is_empty()).then(|| args.words.join(" ")),
        category: args.category,
        kind: args.kind,
        source: args.source,
        verified: args.verified.then_some(true),
        sort: args.sort,
        limit: Some(args.limit),
        ..EntryQuery::default()
    };
    let page: Page<EntrySummary> = context.client.get_with("/catalog/entries", &query).await?;
    output::print_list(context.format, &page.items, &["NAME", "VERSION", "RUNS AS", "DESCRIPTION"], |entry| {
        let text: String = entry.description.chars().take(70).collect();
        vec![entry.name.to_string(), entry.version.clone(), entry.kinds.join(","), text]
    });
    Ok(())
}

async fn sources(context: &Context, command: SourcesCommand) -> Result<(), Failure> {
    let client = &context.client;
    let source: Source = match command {
        SourcesCommand::List => {
            let page: Page<Source> = client.get("/catalog/sources").await?;
            output::print_list(
                context.format,
                &page.items,
                &["NAME", "KIND", "ENTRIES", "SYNC", "MESSAGE"],
                |source| {
                    vec![
                        source.name.to_string(),
                        source.kind.clone(),
                        source.entries.to_string(),
                        source.sync_state.clone(),
                        source.sync_message.clone(),
                    ]
                },
            );
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
    output::print_fields(
        format,
        entry,
        &[
            ("name", summary.name.to_string()),
            ("title", summary.title.clone().unwrap_or_default()),
            ("description", summary.description.clone()),
            ("version", entry.server.version.clone()),
            ("digest", entry.digest.clone()),
            ("review", entry.review.clone()),
            ("source", summary.source.clone()),
            ("verified by", summary.verified_by.clone().unwrap_or_default()),
            ("runs as", summary.kinds.join(", ")),
            ("categories", summary.categories.join(", ")),
            ("website", entry.server.website_url.clone().unwrap_or_default()),
            ("inputs", inputs(entry).join("; ")),
        ],
    );
}

fn inputs(entry: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |name: &str, input: &Input| {
        let required = if input.is_required { ", required" } else { "" };
        let secret = if input.is_secret { ", secret" } else { "" };
        let text = safe(input.description.as_deref().unwrap_or_default());
        lines.push(format!("{}{required}{secret}: {text}", safe(name)));
    };
    for package in &entry.server.packages {
        package.environment_variables.iter().for_each(|variable| add(&variable.name, &variable.input));
        for argument in &package.package_arguments {
            let name = argument.name.as_deref().or(argument.value_hint.as_deref()).unwrap_or("argument");
            add(name, &argument.input);
            argument.input.variables.iter().for_each(|(name, input)| add(name, input));
        }
    }
    let packages = entry.server.packages.iter().map(|package| &package.transport);
    for transport in packages.chain(&entry.server.remotes) {
        transport.headers.iter().for_each(|header| add(&header.name, &header.input));
        transport.variables.iter().for_each(|(name, input)| add(name, input));
    }
    lines
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
