//! Starts every curated npm and PyPI server for real and writes down what it answered.
//!
//! `cargo xtask catalog-proof` deploys each entry through a real `toolyard serve` on an empty data directory,
//! by the commands a person would type. With `--direct` it installs with npm and pip and speaks MCP itself,
//! to tell a broken package from a broken Toolyard. Entries named on the command line are tried alone, and
//! then no report is written. Required inputs get stand-ins: a server must start and list its tools with them.

mod direct;
mod through_toolyard;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const LIST: &str = "crates/control/src/catalog/curated.json";
const REPORT: &str = "docs/reports/catalog-proof.md";

/// Stand-ins for inputs that are checked for their form; every other required one gets `stand-in`.
const STAND_INS: &[(&str, &str)] = &[
    ("SLACK_TEAM_ID", "T00000000"),
    ("NOTION_TOKEN", "ntn_standin"),
    ("ES_URL", "http://127.0.0.1:9200"),
    ("ES_API_KEY", "stand-in"),
    ("CLICKHOUSE_HOST", "127.0.0.1"),
    ("JIRA_URL", "https://jira.example"),
    ("JIRA_USERNAME", "person@example.test"),
    ("JIRA_API_TOKEN", "stand-in"),
    ("database_url", "postgresql://127.0.0.1:1/none"),
];

/// An npm or PyPI entry of the list, as far as the proof needs it.
pub(crate) struct Subject {
    /// The entry's name.
    name: String,
    /// The package.
    package: Value,
    /// Stand-ins by input name.
    inputs: Vec<(String, String)>,
}

/// What a server answered.
pub(crate) struct Answer {
    /// From the command to the answer, installation included or not as the way of starting has it.
    started: Duration,
    /// The protocol version agreed on.
    protocol: String,
    /// How many tools it listed.
    tools: usize,
}

/// Runs the proof.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (mut is_direct, mut binary, mut only) = (false, None, Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match *arg {
            "--direct" => is_direct = true,
            "--binary" => binary = Some(PathBuf::from(rest.next().context("--binary needs a path")?)),
            name => only.push(name),
        }
    }
    let scratch = std::env::temp_dir().join(format!("toolyard-catalog-proof-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).context("making a scratch directory")?;
    let files = scratch.join("files");
    std::fs::create_dir_all(&files).context("making a directory for the servers' files")?;
    // The servers run as other users.
    std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o777)).context("opening it to the servers")?;
    let mut subjects = subjects(&files)?;
    subjects.retain(|subject| only.is_empty() || only.contains(&subject.name.as_str()));
    if subjects.is_empty() {
        bail!("no npm or PyPI entry of that name in {LIST}");
    }
    let results = if is_direct {
        direct::prove(&subjects, &scratch)
    } else {
        through_toolyard::prove(&subjects, &binary.map_or_else(built, Ok)?, &scratch)?
    };
    let _ = std::fs::remove_dir_all(&scratch);
    let failed = results.iter().filter(|result| result.is_err()).count();
    if only.is_empty() {
        let way =
            if is_direct { "npm and pip, and MCP spoken directly" } else { "`toolyard serve` and `toolyard deploy`" };
        std::fs::write(root().join(REPORT), report(&subjects, &results, way)?).context("writing the report")?;
        println!("catalog-proof: {REPORT} written");
    }
    if failed > 0 {
        bail!("{failed} of {} entries did not start", subjects.len());
    }
    println!("catalog-proof: {} entries started", subjects.len());
    Ok(())
}

/// The list's npm and PyPI entries.
fn subjects(files: &Path) -> Result<Vec<Subject>> {
    let text = std::fs::read_to_string(root().join(LIST)).with_context(|| format!("reading {LIST}"))?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("reading {LIST}"))?;
    let servers = list["servers"].as_array().context("the list has no servers")?;
    let packaged = |item: &Value| {
        let server = &item["server"];
        let package = server["packages"]
            .as_array()?
            .iter()
            .find(|p| matches!(p["registryType"].as_str(), Some("npm" | "pypi")))?;
        let inputs = stand_ins(package, files);
        Some(Subject { name: server["name"].as_str()?.to_owned(), package: package.clone(), inputs })
    };
    Ok(servers.iter().filter_map(packaged).collect())
}

/// A value for every required input, and for those that have a stand-in of their own.
fn stand_ins(package: &Value, files: &Path) -> Vec<(String, String)> {
    let listed = |field: &str| package[field].as_array().cloned().unwrap_or_default();
    let mut inputs = Vec::new();
    for input in listed("environmentVariables").into_iter().chain(listed("packageArguments")) {
        let Some(name) = input["name"].as_str().or_else(|| input["valueHint"].as_str()) else { continue };
        let known = STAND_INS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let needed = input["isRequired"] == true && input["value"].is_null();
        let value = known.or_else(|| match (needed, input["format"].as_str()) {
            (false, _) => None,
            (true, Some("filepath")) => Some(files.display().to_string()),
            (true, _) => Some("stand-in".to_owned()),
        });
        inputs.extend(value.map(|value| (name.to_owned(), value)));
    }
    inputs
}

/// The binary that was built last in the usual places.
fn built() -> Result<PathBuf> {
    let places = ["target/release/toolyard", "target/debug/toolyard"].map(|place| root().join(place));
    let modified = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = places.into_iter().filter(|path| path.exists()).max_by_key(modified);
    newest.context("no `toolyard` is built: run `make build`, or pass --binary PATH or --direct")
}

fn report(subjects: &[Subject], results: &[Result<Answer>], way: &str) -> Result<String> {
    let run = |program: &str, args: &[&str]| -> Result<String> {
        let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let started = results.iter().filter(|result| result.is_ok()).count();
    let mut text = format!(
        "# Catalog proof\n\nWritten by `make catalog-proof` on {}. Each npm and PyPI entry of the curated list was started with \
         stand-ins for its inputs, through {way}, on {} with Node {} and {}. {started} of {} answered `initialize` and \
         `tools/list`.\n\n\"Started\" is the time {}.\n\n\
         | entry | kind | package | version | started (ms) | protocol | tools |\n| --- | --- | --- | --- | ---: | --- | ---: |\n",
        run("date", &["-u", "+%Y-%m-%d"])?,
        run("uname", &["-sm"])?,
        run("node", &["--version"])?,
        run("python3", &["--version"])?,
        subjects.len(),
        if way.contains("toolyard") {
            "from `deploy` to ready, installation included"
        } else {
            "from the start of the process to the list of tools"
        },
    );
    for (subject, result) in subjects.iter().zip(results) {
        let field = |name: &str| subject.package[name].as_str().unwrap_or("");
        let (kind, package, version) = (field("registryType"), field("identifier"), field("version"));
        let answer = match result {
            Ok(answer) => format!("{} | {} | {}", answer.started.as_millis(), answer.protocol, answer.tools),
            Err(error) => format!("did not start: {} | | ", one_line(&format!("{error:#}"))),
        };
        writeln!(text, "| {} | {kind} | `{package}` | {version} | {answer} |", subject.name)?;
    }
    Ok(text)
}

/// Text of another program made fit for a table.
fn one_line(text: &str) -> String {
    let clean = text.replace(['\n', '\r', '|'], " ");
    clean.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}
