//! The proof through a real Toolyard: `serve` on an empty data directory, then the commands of a person.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Answer, Subject};

const KEY: &str = "ty_bootstrap_00000000000000000000000000000000";
/// Installation included; the largest package takes about a minute.
const DEPLOY_TIMEOUT_SECONDS: &str = "300";
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running `toolyard serve`, stopped when dropped.
struct Toolyard {
    serve: Child,
    binary: PathBuf,
    url: String,
}

pub(super) fn prove(subjects: &[Subject], binary: &Path, scratch: &Path) -> Result<Vec<Result<Answer>>> {
    let toolyard = Toolyard::start(binary, scratch)?;
    let one = |(at, subject): (usize, &Subject)| {
        let result = toolyard.deploy(subject, &format!("proof-{at}"));
        match &result {
            Ok(answer) => println!("{}: {} tools, {} ms", subject.name, answer.tools, answer.started.as_millis()),
            Err(error) => println!("{}: {error:#}", subject.name),
        }
        result
    };
    Ok(subjects.iter().enumerate().map(one).collect())
}

impl Toolyard {
    fn start(binary: &Path, scratch: &Path) -> Result<Self> {
        let (address, agents) = (free_address()?, free_address()?);
        let log = std::fs::File::create(scratch.join("serve.log")).context("making a log file")?;
        let serve = Command::new(binary)
            .args(["serve", "--data-dir"])
            .arg(scratch.join("data"))
            .args(["--listen", &address.to_string(), "--agent-listen", &agents.to_string()])
            .args(["--set", &format!("grantable_paths={}", scratch.join("files").display())])
            .env("TOOLYARD_BOOTSTRAP_ADMIN_EMAIL", "admin@example.test")
            .env("TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD", "correct-horse-battery")
            .env("TOOLYARD_BOOTSTRAP_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut toolyard = Self { serve, binary: binary.to_owned(), url: format!("http://{address}") };
        let end = Instant::now() + START_TIMEOUT;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = toolyard.serve.try_wait()? {
                bail!("`toolyard serve` ended at once: {status}; {}", tail(&scratch.join("serve.log")));
            }
            if Instant::now() > end {
                bail!("`toolyard serve` does not listen; {}", tail(&scratch.join("serve.log")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(toolyard)
    }

    fn deploy(&self, subject: &Subject, name: &str) -> Result<Answer> {
        let mut args = vec!["deploy".to_owned(), subject.name.clone(), "--name".to_owned(), name.to_owned()];
        let kind = subject.package["registryType"].as_str().unwrap_or_default();
        args.extend(["--package", kind, "--wait", "--timeout", DEPLOY_TIMEOUT_SECONDS].map(str::to_owned));
        for (input, value) in &subject.inputs {
            args.extend(["--input".to_owned(), format!("{input}={value}")]);
            if value.starts_with('/') {
                args.extend(["--path".to_owned(), format!("{value}:rw")]);
            }
        }
        let began = Instant::now();
        let deployed = self.run(&args);
        let started = began.elapsed();
        let answer = deployed.and_then(|_| {
            let tools = self.run(&["tools", name])?;
            let shown = self.run(&["servers", "show", name])?;
            let protocol = shown["instances"][0]["mcp"]["protocol_version"].as_str().unwrap_or("?").to_owned();
            Ok(Answer { started, protocol, tools: tools["items"].as_array().map_or(0, Vec::len) })
        });
        let deleted = self.run(&["servers", "delete", name, "--wait"]);
        match (answer, deleted) {
            (Ok(_), Err(error)) => Err(error.context("deleting it")),
            (answer, _) => answer,
        }
    }

    /// Runs one command of the CLI and reads its JSON.
    fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Value> {
        let output = Command::new(&self.binary)
            .args(args)
            .args(["--output", "json"])
            .env("TOOLYARD_URL", &self.url)
            .env("TOOLYARD_API_KEY", KEY)
            .stdin(Stdio::null())
            .output()
            .context("running the command line")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = text.lines().find(|line| line.starts_with("toolyard:")).or_else(|| text.lines().next());
            bail!("{}", said.unwrap_or("the command failed"));
        }
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).context("reading the command's JSON")
    }
}

impl Drop for Toolyard {
    /// Asks it to stop, so that it stops what it started; kills it when it does not.
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.serve.id().to_string()).status();
        let end = Instant::now() + STOP_TIMEOUT;
        while asked.is_ok() && Instant::now() < end {
            if matches!(self.serve.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.serve.kill();
        let _ = self.serve.wait();
    }
}

/// An address nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("finding a free port")?;
    Ok(listener.local_addr()?)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().take(3).collect::<Vec<_>>().join(" / ")
}
