//! The proof without Toolyard: install with npm and pip, start, and speak MCP over the pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::{Answer, Subject};

const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn prove(subjects: &[Subject], scratch: &Path) -> Vec<Result<Answer>> {
    let one = |(at, subject): (usize, &Subject)| {
        let dir = scratch.join(at.to_string());
        let result = std::fs::create_dir_all(&dir).map_err(Into::into).and_then(|()| start(subject, &dir));
        let _ = std::fs::remove_dir_all(&dir);
        match &result {
            Ok(answer) => println!("{}: {} tools", subject.name, answer.tools),
            Err(error) => println!("{}: {error:#}", subject.name),
        }
        result
    };
    subjects.iter().enumerate().map(one).collect()
}

fn start(subject: &Subject, dir: &Path) -> Result<Answer> {
    let field = |name: &str| subject.package[name].as_str().unwrap_or_default();
    let (package, version) = (field("identifier"), field("version"));
    let mut command =
        if field("registryType") == "npm" { npm(package, version, dir)? } else { pypi(package, version, dir)? };
    command.args(arguments(subject)).envs(environment(subject)).current_dir(dir);
    command.env("HOME", dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().context("starting it")?;
    let answer = talk(&mut child, began);
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn npm(package: &str, version: &str, dir: &Path) -> Result<Command> {
    std::fs::write(dir.join("package.json"), r#"{"private":true}"#)?;
    let spec = format!("{package}@{version}");
    run(Command::new("npm").args(["install", "--ignore-scripts", "--no-audit", "--no-fund", &spec]).current_dir(dir))?;
    let home = dir.join("node_modules").join(package);
    let manifest: Value = serde_json::from_slice(&std::fs::read(home.join("package.json"))?)?;
    let short = package.rsplit('/').next().unwrap_or(package);
    let bin = &manifest["bin"];
    let first = || bin.as_object().and_then(|bins| bins.values().next()?.as_str());
    let program = bin.as_str().or_else(|| bin[short].as_str()).or_else(first).context("the package has no program")?;
    let mut command = Command::new("node");
    command.arg(home.join(program));
    Ok(command)
}

fn pypi(package: &str, version: &str, dir: &Path) -> Result<Command> {
    run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
    let bin = dir.join("venv/bin");
    run(Command::new(bin.join("pip")).args([
        "install",
        "-q",
        "--disable-pip-version-check",
        &format!("{package}=={version}"),
    ]))?;
    let list = "import importlib.metadata as m,sys;print('\\n'.join(e.name for e in m.distribution(sys.argv[1]).entry_points if e.group=='console_scripts'))";
    let output = Command::new(bin.join("python")).args(["-c", list, package]).output()?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = names.lines().find(|name| *name == package).or_else(|| names.lines().next());
    Ok(Command::new(bin.join(name.context("the package has no program")?)))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    bail!("{}", text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed"))
}

fn arguments(subject: &Subject) -> Vec<String> {
    let listed = subject.package["packageArguments"].as_array().cloned().unwrap_or_default();
    let value_of = |argument: &Value| {
        let name = argument["name"].as_str().or_else(|| argument["valueHint"].as_str());
        let given =
            subject.inputs.iter().find(|(input, _)| Some(input.as_str()) == name).map(|(_, value)| value.clone());
        given.or_else(|| argument["value"].as_str().or_else(|| argument["default"].as_str()).map(str::to_owned))
    };
    let rendered = |argument: &Value| match (value_of(argument), argument["name"].as_str()) {
        (Some(value), Some(name)) => Some(format!("{name}={value}")),
        (value, _) => value,
    };
    listed.iter().filter_map(rendered).collect()
}

fn environment(subject: &Subject) -> Vec<(String, String)> {
    let listed = subject.package["environmentVariables"].as_array().cloned().unwrap_or_default();
    let value_of = |variable: &Value| {
        let name = variable["name"].as_str()?;
        let given = subject.inputs.iter().find(|(input, _)| input == name).map(|(_, value)| value.clone());
        let value =
            given.or_else(|| variable["value"].as_str().or_else(|| variable["default"].as_str()).map(str::to_owned))?;
        Some((name.to_owned(), value))
    };
    listed.iter().filter_map(value_of).collect()
}

fn talk(child: &mut Child, began: Instant) -> Result<Answer> {
    let mut input = child.stdin.take().context("its standard input")?;
    let output = child.stdout.take().context("its standard output")?;
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // What is not JSON is noise, which a client ignores.
            if let Ok(message) = serde_json::from_str::<Value>(&line)
                && sender.send(message).is_err()
            {
                break;
            }
        }
    });
    let mut send = |message: Value| writeln!(input, "{message}").and_then(|()| input.flush());
    let client = json!({"name": "toolyard-catalog-proof", "version": env!("CARGO_PKG_VERSION")});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    send(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))?;
    let initialized = answer_to(1, &messages)?;
    send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
    send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}))?;
    let listed = answer_to(2, &messages)?;
    Ok(Answer {
        started: began.elapsed(),
        protocol: initialized["protocolVersion"].as_str().unwrap_or("?").to_owned(),
        tools: listed["tools"].as_array().map_or(0, Vec::len),
    })
}

fn answer_to(id: u64, messages: &Receiver<Value>) -> Result<Value> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut message = messages.recv_timeout(left).map_err(|error| anyhow!("no answer: {error}"))?;
        if message["id"] == id && message.get("method").is_none() {
            if !message["error"].is_null() {
                bail!("it answered with an error: {}", message["error"]["message"]);
            }
            return Ok(message["result"].take());
        }
    }
}
