//! `toolyard connect`: writes an MCP client's configuration, keeping a backup to go back to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value, json};
use toolyard_control::connect::McpClient;
use toolyard_types::Name;
use toolyard_types::access::{Action, KeyScope, Role};

use super::access::create_key;
use super::context::{Context, Failure};
use super::mcp::mcp_path;
use super::output;
use crate::config::process_environment;

/// `toolyard connect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  toolyard connect all --client cursor
  toolyard connect all --client claude-code --print
  toolyard connect all --client vs-code --undo")]
pub(crate) struct ConnectArgs {
    /// A server or a toolset.
    name: Name,
    /// The client to configure.
    #[arg(long, value_parser = client_parser())]
    client: McpClient,
    /// Use this API key instead of making one for the client.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The configuration file, when it is not in its usual place.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the configuration instead of writing it.
    #[arg(long, conflicts_with = "undo")]
    print: bool,
    /// Put back the file as it was before the last `connect`.
    #[arg(long)]
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
    match (path.strip_prefix("~/.config/"), environment.get("XDG_CONFIG_HOME")) {
        (Some(rest), Some(config)) => Some(PathBuf::from(config).join(rest)),
        _ => Some(PathBuf::from(environment.get("HOME")?).join(path.strip_prefix("~/")?)),
    }
}

/// `toolyard connect`.
pub(crate) async fn run(context: &Context, args: ConnectArgs) -> Result<(), Failure> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => usual_file(args.client, &process_environment())
            .ok_or_else(|| Failure::new("there is no home directory; say where the file is with --file"))?,
    };
    if args.undo {
        return undo(context, &file);
    }
    let url = context.link(&mcp_path(context, &args.name).await?);
    let key = match args.key {
        Some(key) => key,
        None => client_key(context, args.client, &args.name).await?,
    };
    let server_name = format!("toolyard-{}", args.name);
    let entry = args.client.entry(&url, &key);
    if args.print && args.client == McpClient::Codex {
        print!("{}", args.client.snippet(&server_name, &url, &key));
        return Ok(());
    }
    if args.print {
        output::print_json(&json!({ args.client.section(): { server_name: entry } }));
        return Ok(());
    }
    if args.client == McpClient::Codex {
        return Err(Failure::new("its file is TOML, which is not changed here; use --print and add it by hand"));
    }
    let backup = write_entry(&file, args.client.section(), &server_name, entry)?;
    let answer = json!({ "file": file, "backup": backup, "server": server_name, "url": url });
    let fields = [
        ("wrote", file.display().to_string()),
        ("backup", backup.map_or("none, the file is new".into(), |path| path.display().to_string())),
        ("server", server_name),
        ("undo", format!("toolyard connect {} --client {} --undo", args.name, args.client.id())),
    ];
    output::print_fields(context.format, &answer, &fields);
    Ok(())
}

/// How long a client's key works. It does so little that a year is fine; `toolyard keys rotate --days` goes on after.
const KEY_DAYS: u32 = 365;

/// A key that can do nothing but call what this client was connected to.
async fn client_key(context: &Context, client: McpClient, name: &Name) -> Result<String, Failure> {
    let mut key_name = format!("{}-{name}", client.id());
    key_name.truncate(Name::MAX_LEN);
    let key_name = Name::new(key_name.trim_end_matches('-')).map_err(|error| Failure::new(error.to_string()))?;
    let scope = KeyScope { actions: vec![Action::ToolCall], resources: vec![name.clone()], ..KeyScope::default() };
    let created = create_key(context, key_name, Role::Developer, scope, KEY_DAYS).await?;
    Ok(created.key)
}

fn backup_path(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".toolyard-backup");
    file.with_file_name(name)
}

/// Marks a backup of a file that did not exist, so that undo removes it again.
const NO_FILE: &str = "toolyard: there was no file\n";

fn write_entry(file: &Path, section: &str, name: &str, entry: Value) -> Result<Option<PathBuf>, Failure> {
    let old = match std::fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::new(format!("cannot read `{}`: {error}", file.display()))),
    };
    let text = old.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    let mut document: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        Failure::new(format!(
            "`{}` is not plain JSON ({error}); it was left alone; use --print and add it by hand",
            file.display()
        ))
    })?;
    match document.entry(section).or_insert_with(|| json!({})) {
        Value::Object(servers) => servers.insert(name.to_owned(), entry),
        _ => {
            return Err(Failure::new(format!(
                "`{section}` in `{}` is not an object; it was left alone",
                file.display()
            )));
        }
    };
    let failed = |error: std::io::Error| Failure::new(format!("cannot write `{}`: {error}", file.display()));
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    write_private(&backup_path(file), old.as_deref().unwrap_or(NO_FILE)).map_err(failed)?;
    let text = serde_json::to_string_pretty(&document).map_err(|error| Failure::new(error.to_string()))?;
    write_private(file, &text).map_err(failed)?;
    Ok(old.map(|_| backup_path(file)))
}

/// Writes beside the file and renames, so that a client never reads half a file. It holds a key now, so only
/// its owner may read it, from its first byte on.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".toolyard-new");
    let fresh = file.with_file_name(name);
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

fn undo(context: &Context, file: &Path) -> Result<(), Failure> {
    let backup = backup_path(file);
    let text = std::fs::read_to_string(&backup)
        .map_err(|_| Failure::new(format!("there is no backup `{}` to go back to", backup.display())))?;
    let failed = |error: std::io::Error| Failure::new(format!("cannot put back `{}`: {error}", file.display()));
    if text == NO_FILE {
        std::fs::remove_file(file).map_err(failed)?;
    } else {
        write_private(file, &text).map_err(failed)?;
    }
    std::fs::remove_file(&backup).map_err(failed)?;
    output::print_fields(
        context.format,
        &json!({ "file": file, "state": "restored" }),
        &[("restored", file.display().to_string())],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_keeps_what_was_there_and_undo_puts_it_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("mcp.json");
        std::fs::write(&file, r#"{"theme":"dark","mcpServers":{"other":{"url":"x"}}}"#).expect("a file");
        let before = std::fs::read_to_string(&file).expect("a file");
        let entry = McpClient::Cursor.entry("http://t/mcp/default/toolsets/all", "ty_k");
        write_entry(&file, "mcpServers", "toolyard-all", entry).expect("written");
        let after: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
        assert_eq!(after["theme"], "dark");
        assert_eq!(after["mcpServers"]["other"]["url"], "x");
        assert_eq!(after["mcpServers"]["toolyard-all"]["headers"]["Authorization"], "Bearer ty_k");
        let text = std::fs::read_to_string(backup_path(&file)).expect("a backup");
        assert_eq!(text, before);
        for path in [&file, &backup_path(&file)] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_not_json_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("mcp.json");
        std::fs::write(&file, "// comment\n{}").expect("a file");
        assert!(write_entry(&file, "mcpServers", "x", json!({})).is_err());
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "// comment\n{}");
    }
}
