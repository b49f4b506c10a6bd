//! `toolyard connect`: adds an entry to an MCP client's configuration, and takes exactly that entry away again.
//!
//! What the file holds besides stays as it is, byte for byte: clients keep their whole state in these files, and write to
//! them after us. The key of an entry is known by the entry: connecting again gives that key another secret, `--undo` ends
//! it, and a file that cannot be written leaves no key behind.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use toolyard_client::ApiError;
use toolyard_control::connect::McpClient;
use toolyard_types::access::{Action, KeyScope, Role};
use toolyard_types::api::identity::{ApiKey, CreatedApiKey, RotateApiKey, Session};
use toolyard_types::{Code, Name, Secret};

use super::access::{active_keys, create_key};
use super::context::{Context, Failure, api_key, config_dir, home};
use super::mcp::mcp_path;
use super::output::{self, Format};
use crate::config::process_environment;

/// `toolyard connect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard connect all --client cursor
  toolyard connect all --client claude-code --print
  toolyard connect all --client vs-code --undo

The file is written for every client but Codex, whose file is TOML. It must be plain JSON: one
with comments or trailing commas, as people often have for Zed, VS Code and Cursor, is left as it
is. For these --print prints the entry with a new key, to add by hand; `toolyard keys revoke` ends
that key.

Connecting again gives the key of the entry another secret; the one until now works for another hour. The file as it was
without entries of Toolyard is kept beside it, as FILE.toolyard-backup, where anything else was in it.

A server of the same name of two Toolyards, such as production's and development's, needs two entries:
  toolyard connect time --client cursor --url https://dev.example.com --as toolyard-dev-time")]
pub(crate) struct ConnectArgs {
    /// A server or a toolset.
    name: Name,
    /// The client to configure.
    #[arg(long, value_parser = client_parser())]
    client: McpClient,
    /// Use this API key instead of making one for the client.
    #[arg(long, value_name = "KEY", conflicts_with = "key_name")]
    key: Option<String>,
    /// How the key that is made is called; CLIENT-NAME, with a number where that is taken, when absent.
    #[arg(long, value_name = "NAME")]
    key_name: Option<Name>,
    /// How the entry is called in the file; toolyard-NAME when absent.
    #[arg(long = "as", value_name = "ENTRY")]
    entry: Option<Name>,
    /// Replace an entry of that name although it is for something else: of another Toolyard, another server or toolset of this
    /// one, or this one at another URL. Its API key is not revoked.
    #[arg(long, conflicts_with_all = ["undo", "print"])]
    replace: bool,
    /// The configuration file, when it is not in its usual place.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the configuration, with a new key, instead of writing it.
    #[arg(long, conflicts_with = "undo")]
    print: bool,
    /// Take the entry out of the file, and revoke the key that was made for it.
    #[arg(long, conflicts_with = "key")]
    undo: bool,
}

fn client_parser() -> impl TypedValueParser<Value = McpClient> {
    PossibleValuesParser::new(McpClient::ALL.iter().map(|client| client.id())).try_map(|id| {
        let known = McpClient::ALL.iter().copied().find(|client| client.id() == id);
        known.ok_or_else(|| format!("there is no client `{id}`"))
    })
}

/// Where a client keeps its user configuration.
fn usual_file(client: McpClient, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let system = if cfg!(target_os = "macos") { "macos" } else { "linux" };
    let (_, path) = client.files().iter().find(|(on, _)| *on == system || *on == "all")?;
    match path.strip_prefix("~/.config/") {
        Some(rest) => Some(config_dir(environment)?.join(rest)),
        None => Some(home(environment)?.join(path.strip_prefix("~/")?)),
    }
}

/// `toolyard connect`.
pub(crate) async fn run(context: &Context, mut args: ConnectArgs) -> Result<(), Failure> {
    if let Some(key) = &args.key {
        args.key = Some(api_key(key)?.expose().to_owned());
    }
    let file = match &args.file {
        Some(file) => file.clone(),
        None => usual_file(args.client, &process_environment())
            .ok_or_else(|| Failure::new("there is no home directory; say where the file is with --file"))?,
    };
    if args.client == McpClient::Codex && !args.print {
        return Err(Failure::new(match args.undo {
            true => {
                "its file is TOML, which is not changed here; take the entry out by hand, and revoke its key with `toolyard keys revoke`"
            }
            false => "its file is TOML, which is not changed here; use --print and add it by hand",
        }));
    }
    let name = args.entry.as_ref().map_or_else(|| format!("{OURS}{}", args.name), ToString::to_string);
    let place = EntryPlace { section: args.client.section(), name };
    if args.undo {
        return undo(context, &args, ClientFile::read(&file)?, &place).await;
    }
    let url = context.link(&mcp_path(context, &args.name).await?);
    if way_to(&url) == Way::Open {
        eprintln!(
            "warning: {} is plain HTTP to another machine: calls and the API key go unencrypted; https:// keeps them secret",
            output::safe(&url)
        );
    }
    if let Some(key) = &args.key {
        check_key(context, key).await?;
    }
    if args.print {
        let key = match &args.key {
            Some(key) => key.clone(),
            None => make_key(context, &args).await?.key,
        };
        if args.client != McpClient::Codex {
            output::print_json(&json!({ place.section: { place.name: args.client.entry(&url, &key) } }));
            return Ok(());
        }
        let toml = args.client.snippet(&place.name, &url, &key);
        match context.format {
            Format::Table => output::print_line(toml.trim_end()),
            Format::Json => output::print_json(&in_json(&file, &toml)),
        }
        return Ok(());
    }
    // Whatever may be wrong with the file is found before there is a key.
    let file = ClientFile::read(&file)?;
    let before = file.entry(&place)?;
    file.check_writable()?;
    if let Some(entry) = &before {
        check_own(context, &args, entry, &place, &file.path).await?;
    }
    let (key, key_name, made) = match &args.key {
        Some(key) => (key.clone(), None, None),
        None => match own_key(context, &args, before.as_ref()).await? {
            Some(own) => (rotate(context, &own).await?.key, Some(own.name), None),
            None => {
                let made = make_key(context, &args).await?;
                (made.key, Some(made.api_key.name.clone()), Some(made.api_key))
            }
        },
    };
    // The client may have written meanwhile: what is changed is the file as it is now.
    let written = ClientFile::read(&file.path)
        .and_then(|now| now.with(&place, &args.client.entry(&url, &key)).and_then(|text| now.write(&text, &place)));
    if let Err(mut failure) = written {
        if let Some(made) = made
            && let Err(kept) = revoke(context, &made).await
        {
            failure
                .details
                .push(format!("API key `{}` was made and could not be revoked: {}", made.name, kept.message));
        }
        return Err(failure);
    }
    let backup = file.backup();
    let undo = undo_command(context, &args);
    let answer = json!({
        "file": file.path, "backup": backup, "server": place.name, "url": url, "key_name": key_name, "undo": undo,
    });
    let fields = [
        ("wrote", file.path.display().to_string()),
        ("backup", backup.map_or("none: nothing else was in the file".into(), |path| path.display().to_string())),
        ("server", place.name),
        ("key name", key_name.map_or_else(String::new, |name| name.to_string())),
        ("undo", undo),
    ];
    output::print_fields(context.format, &answer, &fields);
    Ok(())
}

/// An entry in another language than JSON for whoever reads JSON: what it is, and the file that it belongs into.
fn in_json(file: &Path, toml: &str) -> Value {
    json!({ "path": file.to_string_lossy(), "language": "toml", "content": toml })
}

/// Refuses a key that is none at this Toolyard, before a client is left with it.
async fn check_key(context: &Context, key: &str) -> Result<(), Failure> {
    let client = context.client.elsewhere(context.client.base(), Some(Secret::new(key.to_owned())));
    match client.get::<Session>("/session").await {
        Ok(_) => Ok(()),
        Err(ApiError::Problem(problem)) if problem.code == Code::Unauthenticated => {
            Err(Failure::new(format!("the key given with --key is none of {}; nothing was changed", client.base())))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the names of our entries begin with, unless somebody says another one.
const OURS: &str = "toolyard-";

/// Refuses to replace an entry for something else, or of nobody we know: whoever wrote it would lose its key.
async fn check_own(
    context: &Context,
    args: &ConnectArgs,
    entry: &Value,
    place: &EntryPlace,
    file: &Path,
) -> Result<(), Failure> {
    match is_own(context, args, entry).await {
        Ok(true) => return Ok(()),
        Err(failure) if !args.replace => return Err(undecided(place, failure)),
        Ok(false) | Err(_) => {}
    }
    if args.replace {
        let of = url_in(entry).unwrap_or("no address");
        eprintln!(
            "warning: `{}` was an entry for {}; the API key in it was not revoked, `toolyard keys revoke` does that there",
            place.name,
            output::safe(of)
        );
        return Ok(());
    }
    Err(Failure {
        details: vec![
            "give this one another name with `--as`, such as `--as toolyard-dev-time`".to_owned(),
            "or replace it with `--replace`; undo it before, with the name and at the Toolyard that it is for, to revoke its API \
             key"
            .to_owned(),
        ],
        ..Failure::new(format!("{}; nothing was changed", foreign(context, args, entry, place, file)))
    })
}

/// Whose entry it is could not be asked.
fn undecided(place: &EntryPlace, failure: Failure) -> Failure {
    let message = format!(
        "whether the entry `{}` was made here cannot be told: {}; nothing was changed",
        place.name, failure.message
    );
    Failure { message, ..failure }
}

/// Says whose entry it is that is not ours.
fn foreign(context: &Context, args: &ConnectArgs, entry: &Value, place: &EntryPlace, file: &Path) -> String {
    let whose = match url_in(entry) {
        Some(url) if is_below(url, &format!("{}/mcp/", context.client.base())) => {
            format!("for {} of this Toolyard, which is not `{}`", output::safe(url), args.name)
        }
        Some(url) => format!("for {}, which is not this Toolyard ({})", output::safe(url), context.client.base()),
        None => format!("without the address of this Toolyard ({})", context.client.base()),
    };
    format!("`{}` holds an entry `{}` {whose}", file.display(), place.name)
}

/// Whether an entry is for this very server or toolset: by its URL or, as one Toolyard may be reached at several, by its key.
async fn is_own(context: &Context, args: &ConnectArgs, entry: &Value) -> Result<bool, Failure> {
    let organization = url_in(entry).and_then(|url| organization_in(url, context.client.base(), &args.name));
    if let Some(organization) = organization {
        match context.client.get::<Session>("/session").await {
            Ok(session) if session.organization.as_str() == organization => return Ok(true),
            Ok(_) => {}
            // An entry of an installation that is gone is taken out too; it is of this address and this name.
            Err(ApiError::Unreachable { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(own_key(context, args, Some(entry)).await?.is_some())
}

/// The organization in a URL at which the Toolyard at `base` serves `name`, however the two are written. Servers and toolsets
/// share one name space.
fn organization_in(url: &str, base: &str, name: &Name) -> Option<String> {
    let (url, base) = (reqwest::Url::parse(url).ok()?, reqwest::Url::parse(base).ok()?);
    let rest = url.path().strip_prefix(base.path().trim_end_matches('/'))?.strip_prefix("/mcp/")?;
    let (organization, rest) = rest.split_once('/')?;
    let (kind, served) = rest.split_once('/')?;
    let is_it = url.origin() == base.origin()
        && matches!(kind, "servers" | "toolsets")
        && served.trim_end_matches('/') == name.as_str();
    is_it.then(|| organization.to_owned())
}

/// Whether a URL begins with `base`, however the two are written.
fn is_below(url: &str, base: &str) -> bool {
    match (reqwest::Url::parse(url), reqwest::Url::parse(base)) {
        (Ok(url), Ok(base)) => url.origin() == base.origin() && url.path().starts_with(base.path()),
        _ => false,
    }
}

/// The URL that an entry of any client leads to.
fn url_in(entry: &Value) -> Option<&str> {
    match entry {
        Value::String(text) => {
            Some(text.as_str()).filter(|text| text.starts_with("http://") || text.starts_with("https://"))
        }
        Value::Array(items) => items.iter().find_map(url_in),
        Value::Object(members) => members.values().find_map(url_in),
        _ => None,
    }
}

/// How what is sent to a URL gets there.
#[derive(Debug, PartialEq)]
enum Way {
    Encrypted,
    ThisMachine,
    Open,
}

fn way_to(url: &str) -> Way {
    let Some(url) = reqwest::Url::parse(url).ok().filter(|url| url.scheme() == "http") else { return Way::Encrypted };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = address.map_or_else(|_| host == "localhost" || host.ends_with(".localhost"), |at| at.is_loopback());
    if is_here { Way::ThisMachine } else { Way::Open }
}

/// The command that undoes exactly this.
fn undo_command(context: &Context, args: &ConnectArgs) -> String {
    let mut words = vec!["connect", args.name.as_str(), "--client", args.client.id()];
    let file = args.file.as_ref().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
    let file = file.as_ref().map(|file| file.to_string_lossy());
    if let Some(file) = &file {
        words.extend(["--file", file]);
    }
    if let Some(key_name) = &args.key_name {
        words.extend(["--key-name", key_name.as_str()]);
    }
    if let Some(entry) = &args.entry {
        words.extend(["--as", entry.as_str()]);
    }
    words.push("--undo");
    context.command(&words)
}

/// Takes our entry out of the file as it is now, and ends the key that was made for it.
async fn undo(context: &Context, args: &ConnectArgs, file: ClientFile, place: &EntryPlace) -> Result<(), Failure> {
    let Some(entry) = file.entry(place)? else {
        return Err(Failure::new(format!(
            "there is no `{}` in `{}` of `{}`; nothing was changed",
            place.name,
            place.section,
            file.path.display()
        )));
    };
    if !is_own(context, args, &entry).await.map_err(|failure| undecided(place, failure))? {
        return Err(not_undone(context, args, &entry, place, &file.path).await);
    }
    // Asked first: without the entry nobody could say which key it was.
    let own = own_key(context, args, Some(&entry)).await;
    // The client may have written meanwhile: what is changed is the file as it is now.
    let file = ClientFile::read(&file.path)?;
    file.write(&file.without(place)?, place)?;
    let revoked = match own {
        Ok(Some(own)) => revoke(context, &own).await.map(|()| Some(own.name)),
        Ok(None) => Ok(None),
        Err(failure) => Err(failure),
    };
    let revoked = revoked.map_err(|failure| Failure {
        message: format!("the entry is gone, but its API key was not revoked: {}", failure.message),
        ..failure
    })?;
    // One that was given with `--key`, or made by somebody else.
    let kept = key_in(&entry).filter(|_| revoked.is_none()).map(shown_key);
    output::print_fields(
        context.format,
        &json!({
            "file": file.path, "removed": place.name, "revoked": revoked, "not_revoked": kept,
            "backup": file.backup(),
        }),
        &[
            ("removed", place.name.clone()),
            ("from", file.path.display().to_string()),
            ("revoked key", revoked.as_ref().map_or_else(String::new, ToString::to_string)),
            (
                "key not revoked",
                kept.map_or_else(String::new, |key| format!("{key}, which was not made for this entry")),
            ),
        ],
    );
    Ok(())
}

/// The entry is for something else, so it stays. The key that was made here for one in its place may work on: whoever undoes
/// this wants to know. It may as well be the one of another machine.
async fn not_undone(context: &Context, args: &ConnectArgs, entry: &Value, place: &EntryPlace, file: &Path) -> Failure {
    let made = made_keys(context, args).await.unwrap_or_default();
    let keys = made.iter().map(|key| {
        let revoke = context.command(&["keys", "revoke", &key.id.to_string()]);
        format!(
            "API key `{}` was made for `{}` in this client and was not revoked; where no other machine uses it, `{revoke}` does \
             that",
            key.name, args.name
        )
    });
    Failure {
        details: keys.collect(),
        ..Failure::new(format!(
            "{}; nothing was changed, and no key was revoked",
            foreign(context, args, entry, place, file)
        ))
    }
}

/// What some editors begin a file of UTF-8 with.
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// How long a client's key works. It does so little that a year is fine; connecting again begins another.
const KEY_DAYS: u32 = 365;
/// How long the secret before works too, for a client that has not read its file again.
const OVERLAP_SECONDS: u32 = 3600;
/// So many keys of one client and one name are told apart.
const NUMBERS: u32 = 99;

/// A key that can do nothing but call what this client was connected to.
fn scope(name: &Name) -> KeyScope {
    KeyScope { actions: vec![Action::ToolCall], resources: vec![name.clone()], ..KeyScope::default() }
}

/// What the names of the keys made for this client begin with.
fn key_stem(args: &ConnectArgs) -> String {
    let mut stem = format!("{}-{}", args.client.id(), args.name);
    stem.truncate(Name::MAX_LEN - "-99".len());
    stem.trim_end_matches('-').to_owned()
}

async fn make_key(context: &Context, args: &ConnectArgs) -> Result<CreatedApiKey, Failure> {
    if let Some(name) = &args.key_name {
        return Ok(create_key(context, name.clone(), Role::Developer, scope(&args.name), KEY_DAYS).await?);
    }
    let stem = key_stem(args);
    let mut number = 1;
    loop {
        // The one of another machine, or that was printed, works on.
        let name = if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
        let name = Name::new(name).map_err(|error| Failure::new(error.to_string()))?;
        match create_key(context, name, Role::Developer, scope(&args.name), KEY_DAYS).await {
            Err(ApiError::Problem(problem)) if problem.code == Code::AlreadyExists && number < NUMBERS => number += 1,
            other => return Ok(other?),
        }
    }
}

/// The key in an entry, when it was made here for this client and still works.
async fn own_key(context: &Context, args: &ConnectArgs, entry: Option<&Value>) -> Result<Option<ApiKey>, Failure> {
    let Some(secret) = entry.and_then(key_in) else { return Ok(None) };
    Ok(made_keys(context, args).await?.into_iter().find(|key| secret.starts_with(&key.prefix)))
}

/// The keys that were made here for this client and still work: those of other machines too.
async fn made_keys(context: &Context, args: &ConnectArgs) -> Result<Vec<ApiKey>, Failure> {
    let (stem, wanted) = (key_stem(args), scope(&args.name));
    let mut keys = active_keys(context, Some("me".to_owned())).await?;
    keys.retain(|key| {
        let named = key.name.as_str().starts_with(&stem) || Some(&key.name) == args.key_name.as_ref();
        named && key.scope.as_ref() == Some(&wanted)
    });
    Ok(keys)
}

/// The part of a key that lists of keys show, which nobody can call with.
fn shown_key(key: &str) -> String {
    let shown: String = key.chars().take((key.chars().count() / 4).min(11)).collect();
    output::safe(&format!("{shown}..."))
}

/// The key that an entry of any client sends.
fn key_in(entry: &Value) -> Option<&str> {
    match entry {
        Value::String(text) => text.strip_prefix("Bearer "),
        Value::Array(items) => items.iter().find_map(key_in),
        Value::Object(members) => members.values().find_map(key_in),
        _ => None,
    }
}

/// Whether an entry, as it is written, sends the key of a Toolyard.
fn holds_key(entry: &str) -> bool {
    let entry = serde_json::from_str::<Value>(entry).unwrap_or_default();
    key_in(&entry).is_some_and(|key| key.starts_with("ty_"))
}

async fn rotate(context: &Context, key: &ApiKey) -> Result<CreatedApiKey, Failure> {
    let body = RotateApiKey { overlap_seconds: Some(OVERLAP_SECONDS), expires_in_days: Some(KEY_DAYS) };
    Ok(context.client.post(&format!("/keys/{}/rotate", key.id), &body).await?)
}

async fn revoke(context: &Context, key: &ApiKey) -> Result<(), Failure> {
    let path = format!("/keys/{}", key.id);
    let _: Value = context.client.send(reqwest::Method::DELETE, &path, None::<&()>).await?;
    Ok(())
}

fn backup_path(file: &Path) -> PathBuf {
    with_ending(file, ".toolyard-backup")
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    file.with_file_name(name)
}

/// Where in a client's file our entry stands.
struct EntryPlace {
    section: &'static str,
    name: String,
}

/// A client's configuration file, as text. Changes are made to the text, so that all that is not ours stays as it is.
struct ClientFile {
    path: PathBuf,
    /// Nothing when there is no file.
    text: Option<String>,
}

impl ClientFile {
    fn read(path: &Path) -> Result<Self, Failure> {
        // A link stays one: it is its target that changes.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text: Some(text) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { path, text: None }),
            Err(error) => Err(Failure::new(format!("cannot read `{}`: {error}", path.display()))),
        }
    }

    /// What there is to change: an empty file is an empty object.
    fn document(&self) -> &str {
        let text = self.text.as_deref().unwrap_or_default();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if text.trim().is_empty() { "{}" } else { text }
    }

    /// The byte order mark, where the file begins with one: no part of the JSON, and kept.
    fn mark(&self) -> &'static str {
        if self.text.as_deref().is_some_and(|text| text.starts_with(BYTE_ORDER_MARK)) { BYTE_ORDER_MARK } else { "" }
    }

    /// Whether there is an entry of a Toolyard: ours, one with a name that we give, or one with a key of a Toolyard.
    fn holds_entries(&self, place: &EntryPlace) -> bool {
        let section = self.section(place).ok().flatten();
        let mut entries = section.iter().flat_map(|section| &section.members);
        entries.any(|(name, entry)| *name == place.name || name.starts_with(OURS) || holds_key(entry))
    }

    /// The text without the entries that hold a key of a Toolyard, or are ours by their name; nothing when nothing else is
    /// in it.
    fn without_entries(&self, place: &EntryPlace) -> Result<Option<String>, Failure> {
        let mut left = Self { path: self.path.clone(), text: self.text.clone() };
        while let Some(name) = left.first_of_ours(place)? {
            let text = left.without(&EntryPlace { section: place.section, name })?;
            left.text = Some(text);
        }
        let is_empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
        let value: Value = serde_json::from_str(left.document()).unwrap_or_default();
        let has_more = !value.as_object().is_some_and(|members| members.values().all(is_empty));
        Ok(left.text.filter(|_| has_more))
    }

    fn first_of_ours(&self, place: &EntryPlace) -> Result<Option<String>, Failure> {
        let section = self.section(place)?;
        let mut entries = section.iter().flat_map(|section| &section.members);
        let ours = entries.find(|(name, entry)| name.starts_with(OURS) || holds_key(entry));
        Ok(ours.map(|(name, _)| name.clone()))
    }

    /// Where the file before is, if it was kept.
    fn backup(&self) -> Option<PathBuf> {
        Some(backup_path(&self.path)).filter(|path| self.text.is_some() && path.exists())
    }

    fn root(&self) -> Result<Object<'_>, Failure> {
        Object::of(self.document(), self.document()).map_err(|error| {
            Failure::new(format!(
                "`{}` is not plain JSON with an object ({error}); it was left alone; use --print and add it by hand",
                self.path.display()
            ))
        })
    }

    fn section(&self, place: &EntryPlace) -> Result<Option<Object<'_>>, Failure> {
        let Some(text) = self.root()?.value(place.section) else { return Ok(None) };
        Object::of(self.document(), text).map(Some).map_err(|_| {
            let message =
                format!("`{}` in `{}` is not an object; it was left alone", place.section, self.path.display());
            Failure::new(message)
        })
    }

    /// Our entry.
    fn entry(&self, place: &EntryPlace) -> Result<Option<Value>, Failure> {
        let section = self.section(place)?;
        let text = section.as_ref().and_then(|section| section.value(&place.name));
        Ok(text.map(|text| serde_json::from_str(text).expect("it was read as a part of the file")))
    }

    /// The text with this as our entry.
    fn with(&self, place: &EntryPlace, entry: &Value) -> Result<String, Failure> {
        let document = self.document();
        let (range, text) = match self.section(place)? {
            Some(section) => section.put(&place.name, entry, 2),
            None => self.root()?.put(place.section, &json!({ &place.name: entry }), 1),
        };
        Ok(format!("{}{}{text}{}", self.mark(), &document[..range.start], &document[range.end..]))
    }

    /// The text without our entry.
    fn without(&self, place: &EntryPlace) -> Result<String, Failure> {
        let document = self.document();
        let range = self.section(place)?.and_then(|section| section.member(&place.name)).unwrap_or(0..0);
        Ok(format!("{}{}{}", self.mark(), &document[..range.start], &document[range.end..]))
    }

    fn check_writable(&self) -> Result<(), Failure> {
        let tried = self.path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let fresh = with_ending(&self.path, ".toolyard-new");
            std::fs::write(&fresh, "").and_then(|()| std::fs::remove_file(&fresh))
        });
        tried.map_err(|error| self.not_written(&error))
    }

    /// Writes the text, and keeps the one before beside it. One with entries of a Toolyard in it is kept only where there is
    /// none from before these, and without them: their keys work.
    fn write(&self, text: &str, place: &EntryPlace) -> Result<(), Failure> {
        let backup = backup_path(&self.path);
        let before = match &self.text {
            Some(before) if !self.holds_entries(place) => Some(before.clone()),
            Some(_) if !backup.exists() => self.without_entries(place)?,
            _ => None,
        };
        let kept = before.map_or(Ok(()), |before| write_private(&backup, &before));
        kept.and_then(|()| write_private(&self.path, text)).map_err(|error| self.not_written(&error))
    }

    fn not_written(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("cannot write `{}`: {error}", self.path.display()))
    }
}

/// An object of a document, by where its parts stand in the text.
struct Object<'a> {
    document: &'a str,
    /// From `{` to behind `}`.
    range: Range<usize>,
    members: Vec<(String, &'a str)>,
}

impl<'a> Object<'a> {
    /// The object that `text`, a part of the document, is.
    fn of(document: &'a str, text: &'a str) -> Result<Self, serde_json::Error> {
        let whole: &'a RawValue = serde_json::from_str(text)?;
        let Members(members) = serde_json::from_str(whole.get())?;
        Ok(Self { document, range: range_in(document, whole.get()), members })
    }

    /// The last member of a name is the one that counts.
    fn position(&self, name: &str) -> Option<usize> {
        self.members.iter().rposition(|(member, _)| member == name)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.position(name).map(|at| self.members[at].1)
    }

    fn end_of(&self, at: usize) -> usize {
        range_in(self.document, self.members[at].1).end
    }

    /// What to replace by what, so that the member has this value; `depth` is that of the object's members.
    fn put(&self, name: &str, value: &Value, depth: usize) -> (Range<usize>, String) {
        let line = format!("\n{}", "  ".repeat(depth));
        let value = serde_json::to_string_pretty(value).expect("our entries serialise").replace('\n', &line);
        match (self.position(name), self.members.len().checked_sub(1)) {
            (Some(at), _) => (range_in(self.document, self.members[at].1), value),
            (None, Some(last)) => {
                let end = self.end_of(last);
                (end..end, format!(",{line}{}: {value}", json!(name)))
            }
            (None, None) => {
                let outer = format!("\n{}", "  ".repeat(depth - 1));
                (self.range.clone(), format!("{{{line}{}: {value}{outer}}}", json!(name)))
            }
        }
    }

    /// The text that is one member, with its comma.
    fn member(&self, name: &str) -> Option<Range<usize>> {
        let at = self.position(name)?;
        let end = self.end_of(at);
        if at > 0 {
            return Some(self.end_of(at - 1)..end);
        }
        let begin = self.range.start + 1;
        match self.document[end..self.range.end].find(',').filter(|_| self.members.len() > 1) {
            Some(comma) => Some(begin..end + comma + 1),
            None => Some(begin..self.range.end - 1),
        }
    }
}

/// Where a part of a text stands in it.
fn range_in(text: &str, part: &str) -> Range<usize> {
    let begin = part.as_ptr().addr() - text.as_ptr().addr();
    begin..begin + part.len()
}

/// The members of an object in their order, each as it is written.
struct Members<'a>(Vec<(String, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// Writes beside the file and renames, so that a client never reads half a file. It holds a key now, so only
/// its owner may read it, from its first byte on.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = with_ending(file, ".toolyard-new");
    // What an earlier attempt left would keep its mode.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PLACE: EntryPlace = EntryPlace { section: "mcpServers", name: String::new() };

    fn place(name: &str) -> EntryPlace {
        EntryPlace { name: name.to_owned(), ..PLACE }
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mcp.json");
        std::fs::write(&path, text).expect("a file");
        (dir, path)
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).expect("a file")
    }

    fn connect(path: &Path, name: &str) {
        let entry = McpClient::Cursor.entry("http://t/mcp/default/toolsets/all", "ty_k");
        let file = ClientFile::read(path).expect("a file");
        file.write(&file.with(&place(name), &entry).expect("changed"), &place(name)).expect("written");
    }

    fn undo(path: &Path, name: &str) {
        let file = ClientFile::read(path).expect("a file");
        file.write(&file.without(&place(name)).expect("changed"), &place(name)).expect("written");
    }

    #[test]
    fn mcp_remote_is_told_that_plain_http_is_meant_wherever_it_would_refuse_it() {
        for (url, way, told) in [
            ("http://192.0.2.7:8080/mcp/default/servers/time", Way::Open, true),
            ("http://toolyard.lan/mcp", Way::Open, true),
            ("http://localhost.example.com/mcp", Way::Open, true),
            ("http://127.0.0.1.example.com/mcp", Way::Open, true),
            ("http://[::1]:8080/mcp", Way::ThisMachine, true),
            ("http://127.0.0.2:8080/mcp", Way::ThisMachine, true),
            ("http://127.0.0.1:8080/mcp", Way::ThisMachine, false),
            ("http://localhost:8080/mcp", Way::ThisMachine, false),
            ("https://toolyard.example.com/mcp", Way::Encrypted, false),
        ] {
            assert_eq!(way_to(url), way, "{url}");
            let desktop = McpClient::ClaudeDesktop.entry(url, "ty_k");
            let arguments = desktop["args"].as_array().expect("arguments");
            assert_eq!(arguments.contains(&json!("--allow-http")), told, "{url}: {desktop}");
            assert_eq!(arguments[2], url);
        }
    }

    #[test]
    fn without_a_home_directory_no_file_is_made_in_the_current_one() {
        for client in McpClient::ALL {
            let environment = BTreeMap::from([("HOME".to_owned(), String::new())]);
            assert_eq!(usual_file(*client, &environment), None, "{client:?}");
        }
    }

    #[test]
    fn connecting_keeps_what_was_there_and_undo_takes_exactly_the_entry_away() {
        for before in [
            r#"{"theme":"dark","mcpServers":{"other":{"url":"x"}},"z":1.10,"a":[1,  2]}"#,
            "{\n    \"mcpServers\": {\n        \"other\": {}\n    },\n    \"cost\": 0.30000000000000004\n}\n",
            r#"{"a, b": ",}", "mcpServers": { "x,y": {"url": ",{"}, "z": 1 } }"#,
        ] {
            let (_dir, path) = file(before);
            connect(&path, "toolyard-all");
            let after: Value = serde_json::from_str(&text(&path)).expect("JSON");
            let entry = &after["mcpServers"]["toolyard-all"];
            assert_eq!(entry["headers"]["Authorization"], "Bearer ty_k");
            assert_eq!(key_in(entry), Some("ty_k"));
            assert_eq!(text(&backup_path(&path)), before);
            for path in [&path, &backup_path(&path)] {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(path).expect("a file").permissions().mode() & 0o777, 0o600);
            }
            undo(&path, "toolyard-all");
            assert_eq!(text(&path), before, "what is not ours stays as it was, byte for byte");
        }
    }

    #[test]
    fn undo_keeps_what_the_client_wrote_since_also_in_a_file_that_was_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("claude.json");
        connect(&path, "toolyard-all");
        let since = text(&path).replacen('{', r#"{"projects":{"/home/me":{"history":["hi"]}},"#, 1);
        std::fs::write(&path, since).expect("the client writes");
        undo(&path, "toolyard-all");
        let after: Value = serde_json::from_str(&text(&path)).expect("JSON");
        assert_eq!(after, json!({ "projects": { "/home/me": { "history": ["hi"] } }, "mcpServers": {} }));
    }

    #[test]
    fn undo_of_one_leaves_the_others_in_whatever_order() {
        let (_dir, path) = file("");
        for name in ["toolyard-time", "toolyard-all", "toolyard-third"] {
            connect(&path, name);
            connect(&path, name);
        }
        let mut left = BTreeSet::from(["toolyard-all", "toolyard-third", "toolyard-time"]);
        for gone in ["toolyard-all", "toolyard-time", "toolyard-third"] {
            undo(&path, gone);
            left.remove(gone);
            let after: Value = serde_json::from_str(&text(&path)).expect("JSON");
            let servers = after["mcpServers"].as_object().expect("an object");
            assert_eq!(servers.keys().map(String::as_str).collect::<BTreeSet<_>>(), left);
        }
    }

    #[test]
    fn the_backup_is_of_before_the_first_entry_whatever_is_changed_after_it() {
        let before = r#"{"theme":"dark"}"#;
        let (_dir, path) = file(before);
        for change in [connect, connect, undo] {
            change(&path, "toolyard-all");
            assert_eq!(text(&backup_path(&path)), before);
        }
        std::fs::write(&path, r#"{"theme":"light"}"#).expect("the client writes");
        connect(&path, "toolyard-all");
        connect(&path, "toolyard-time");
        assert_eq!(text(&backup_path(&path)), r#"{"theme":"light"}"#, "the last without an entry of ours");
        // Nor of one that holds a key by another name.
        connect(&path, "mine");
        undo(&path, "toolyard-all");
        undo(&path, "toolyard-time");
        connect(&path, "toolyard-all");
        assert_eq!(text(&backup_path(&path)), r#"{"theme":"light"}"#);
        let (_dir, path) = file(r#"{"mcpServers":{"toolyard-old":{}}}"#);
        connect(&path, "toolyard-all");
        assert!(!backup_path(&path).exists(), "there was nothing else");
    }

    #[test]
    fn no_backup_has_a_key_of_a_toolyard() {
        let key = r#"{"headers":{"Authorization":"Bearer ty_old"}}"#;
        let text_with = |entries: &str| format!(r#"{{"theme":"dark","mcpServers":{{{entries}}}}}"#);
        for (before, kept) in [
            (format!(r#""mine":{key},"toolyard-old":{key}"#), ""),
            (format!(r#""mine":{key},"other":{{}}"#), r#""other":{}"#),
            (format!(r#""other":{{}},"toolyard-all":{key}"#), r#""other":{}"#),
        ] {
            let (_dir, path) = file(&text_with(&before));
            connect(&path, "toolyard-all");
            assert_eq!(text(&backup_path(&path)), text_with(kept), "{before}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mcp.json");
        for change in [connect, connect, undo] {
            change(&path, "toolyard-all");
            assert!(!backup_path(&path).exists(), "the file was made here");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_fault_of_a_file_and_stays() {
        for before in ["\u{feff}{\"theme\": \"dark\"}", "\u{feff}"] {
            let (_dir, path) = file(before);
            connect(&path, "toolyard-all");
            let after = text(&path);
            let json = after.strip_prefix('\u{feff}').expect("the mark");
            let after: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(key_in(&after["mcpServers"]["toolyard-all"]), Some("ty_k"));
            undo(&path, "toolyard-all");
            assert!(text(&path).starts_with('\u{feff}') && !text(&path).contains("toolyard-all"));
        }
    }

    #[test]
    fn the_url_of_an_entry_of_any_client_says_whose_it_is() {
        let url = "https://t.example.com/yard/mcp/default/servers/time";
        for client in McpClient::ALL {
            assert_eq!(url_in(&client.entry(url, "ty_k")), Some(url), "{client:?}");
        }
        for (base, own) in [
            ("https://t.example.com/yard", true),
            ("https://T.example.com:443/yard", true),
            ("https://t.example.com/yar", false),
            ("http://t.example.com/yard", false),
            ("https://t.example.com:8443/yard", false),
            ("https://t.example.com.evil.example/yard", false),
        ] {
            assert_eq!(is_below(url, &format!("{base}/mcp/")), own, "{base}");
            let organization = organization_in(url, base, &Name::new("time").expect("a name"));
            assert_eq!(organization.is_some(), own, "{base}");
        }
        let base = "https://t.example.com/yard/";
        for (path, organization) in [
            ("mcp/default/servers/time", Some("default")),
            ("mcp/default/toolsets/time", Some("default")),
            ("mcp/other/servers/time/", Some("other")),
            ("mcp/default/servers/other", None),
            ("mcp/default/servers/time-2", None),
            ("mcp/default/others/time", None),
            ("mcp/time", None),
        ] {
            let found = organization_in(&format!("{base}{path}"), base, &Name::new("time").expect("a name"));
            assert_eq!(found.as_deref(), organization, "{path}");
        }
    }

    #[test]
    fn a_file_that_is_not_json_is_left_alone() {
        for bad in ["// comment\n{}", "[]", "{\"mcpServers\": []}", "{} {}"] {
            let (_dir, path) = file(bad);
            let read = ClientFile::read(&path).expect("a file");
            assert!(read.entry(&place("x")).is_err() && read.with(&place("x"), &json!({})).is_err(), "{bad}");
            assert_eq!(text(&path), bad);
        }
    }

    #[test]
    fn a_link_to_a_file_stays_a_link() {
        let (dir, path) = file("{}");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        connect(&link, "toolyard-all");
        assert!(link.is_symlink() && text(&path).contains("toolyard-all"));
    }
}
