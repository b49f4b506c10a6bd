//! PyPI packages: a lock with hashes made and installed by uv, started as `<venv>/bin/python <script>`.

use std::path::{Path, PathBuf};

use toolyard_types::agent::Failure;
use toolyard_types::name::printable;
use toolyard_types::requirement;
use toolyard_types::spec::{Lock, Package};
use toolyard_types::state::Reason;

use super::client::{Clients, HostClients, Output, Python};
use super::failure;
use super::npm::check_version;
use super::store::{INSTALL_TIMEOUT, RESOLVE_TIMEOUT, hand_in, lock, read_made};
use crate::engine::Progress;

/// What a package is resolved and installed with, and where that is written down.
pub(super) struct Tools<'a> {
    pub(super) clients: &'a Clients,
    pub(super) uv: &'a Path,
    pub(super) python: &'a Python,
    pub(super) log: Progress<'a>,
}

impl Tools<'_> {
    async fn uv(&self, arguments: &[&str], dir: &Path, timeout: std::time::Duration) -> Result<Output, Failure> {
        let output = self.clients.uv(self.uv, arguments, dir, timeout).await?;
        output.tell("uv", self.log);
        Ok(output)
    }
}

/// Makes the full lock of a package with uv.
///
/// # Errors
/// When there is no such package or version, or uv fails.
pub(super) async fn resolve(tools: &Tools<'_>, package: &Package, scratch: &Path) -> Result<Lock, Failure> {
    hand_in(&scratch.join("requirements.in"), &requirements(package)?)?;
    let interpreter = text(&tools.python.executable)?;
    let arguments = [
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--only-binary",
        ":all:",
        "--python",
        interpreter,
        "--output-file",
        "requirements.txt",
        "requirements.in",
    ];
    let output = tools.uv(&arguments, scratch, RESOLVE_TIMEOUT).await?;
    check(&output)?;
    let content = read_made(&scratch.join("requirements.txt"))?;
    check_lock(&content)?;
    let version = locked_version(&content, &package.identifier).unwrap_or_default();
    Ok(lock(version, content))
}

/// What uv is to resolve: the package, and what is wanted beside it, each on a line.
fn requirements(package: &Package) -> Result<String, Failure> {
    check_name(&package.identifier)?;
    check_version(&package.version)?;
    let mut lines = vec![match package.version.as_str() {
        "" | "latest" => package.identifier.clone(),
        version => format!("{}=={version}", package.identifier),
    }];
    if package.with.len() > requirement::MOST {
        let message = format!("it wants more than {} further requirements", requirement::MOST);
        return Err(failure(Reason::ConfigInvalid, message));
    }
    for wanted in &package.with {
        let message = || format!("`{}` is not a plain requirement of a package index", printable(wanted));
        lines.push(requirement::plain(wanted).ok_or_else(|| failure(Reason::ConfigInvalid, message()))?);
    }
    Ok(lines.join("\n"))
}

/// Installs exactly what `lock` names into the empty directory `dir`.
///
/// # Errors
/// When a file is not the one the lock names, or uv fails.
pub(super) async fn install(tools: &Tools<'_>, lock: &Lock, dir: &Path) -> Result<(), Failure> {
    check_lock(&lock.content)?;
    hand_in(&dir.join("requirements.txt"), &lock.content)?;
    let interpreter = text(&tools.python.executable)?;
    let arguments = ["venv", "--quiet", "--relocatable", "--no-project", "--python", interpreter, "venv"];
    check(&tools.uv(&arguments, dir, INSTALL_TIMEOUT).await?)?;
    let arguments = [
        "pip",
        "sync",
        "--quiet",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
        "--compile-bytecode",
        "--python",
        "venv/bin/python",
        "requirements.txt",
    ];
    check(&tools.uv(&arguments, dir, INSTALL_TIMEOUT).await?)
}

/// Fetches uv into `dir` with pip.
///
/// # Errors
/// When pip fails.
pub(super) async fn fetch_uv(clients: &HostClients, dir: &Path) -> Result<(), Failure> {
    let target = text(dir)?;
    let arguments = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--only-binary",
        ":all:",
        "--target",
        target,
        "uv",
    ];
    let output = clients.python(&arguments, dir, INSTALL_TIMEOUT).await?;
    match output.success {
        true => Ok(()),
        false => Err(failure(Reason::EngineUnavailable, format!("fetch uv: {}", output.complaint()))),
    }
}

/// The interpreter and script to start.
///
/// # Errors
/// When the package has no such executable.
pub(super) fn script(dir: &Path, package: &Package) -> Result<(PathBuf, PathBuf), Failure> {
    let venv = dir.join("venv");
    let scripts = console_scripts(&venv, &package.identifier);
    let chosen = match &package.command {
        Some(command) => scripts.iter().find(|script| *script == command),
        None => {
            let same = |script: &&String| normalised(script) == normalised(&package.identifier);
            scripts.iter().find(same).or(if scripts.len() == 1 { scripts.first() } else { None })
        }
    };
    let Some(name) = chosen else {
        let wanted = package.command.as_deref().unwrap_or(&package.identifier);
        let message = format!("package `{}` has no executable `{wanted}`", package.identifier);
        return Err(failure(Reason::ConfigInvalid, message));
    };
    Ok((venv.join("bin/python"), venv.join("bin").join(name)))
}

/// The console scripts a distribution declares.
fn console_scripts(venv: &Path, identifier: &str) -> Vec<String> {
    let Some(info) = dist_info(venv, identifier) else { return Vec::new() };
    let text = std::fs::read_to_string(info.join("entry_points.txt")).unwrap_or_default();
    let section = text.lines().map(str::trim).skip_while(|line| *line != "[console_scripts]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().to_owned()));
    names.filter(|name| !name.contains('/') && venv.join("bin").join(name).is_file()).collect()
}

fn dist_info(venv: &Path, identifier: &str) -> Option<PathBuf> {
    let lib = std::fs::read_dir(venv.join("lib")).ok()?.flatten().next()?.path().join("site-packages");
    let entries = std::fs::read_dir(lib).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".dist-info"));
        let name = name.and_then(|name| name.rsplit_once('-')).map(|(name, _)| normalised(name));
        name.is_some_and(|name| name == normalised(identifier))
    })
}

/// A name as PyPI compares them (PEP 503).
fn normalised(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// Only exact versions of packages of the index, each with its checksums: no address, no path, no option.
fn check_lock(content: &str) -> Result<(), Failure> {
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let plain = match line.strip_prefix("--") {
            Some(option) => option.starts_with("hash="),
            None => line.contains("==") && !line.starts_with('-') && !line.contains(" @ "),
        };
        if !plain || line.contains("://") {
            let shown = printable(line.get(..200).unwrap_or(line));
            let message = format!("the lock wants `{shown}`, which is not a version in a configured index");
            return Err(failure(Reason::ConfigInvalid, message));
        }
    }
    Ok(())
}

fn locked_version(content: &str, identifier: &str) -> Option<String> {
    content.lines().find_map(|line| {
        let (name, rest) = line.split_once("==")?;
        (normalised(name.trim()) == normalised(identifier))
            .then(|| rest.split([' ', ';', '\\']).next().unwrap_or_default().to_owned())
    })
}

fn check(output: &Output) -> Result<(), Failure> {
    if output.success {
        return Ok(());
    }
    let said = output.stderr.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let reason = if any(&["hash mismatch", "hashes do not match"]) {
        Reason::ChecksumMismatch
    } else if any(&["not found in the package registry", "there is no version of", "no matching distribution"]) {
        Reason::PackageNotFound
    } else if output.is_refused() || any(&["file name too long"]) {
        Reason::ConfigInvalid
    } else {
        Reason::InstallFailed
    };
    Err(failure(reason, output.complaint()))
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| failure(Reason::EngineUnavailable, "a path is not UTF-8"))
}

/// Only names from the index: no paths, addresses or options.
fn check_name(name: &str) -> Result<(), Failure> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= 200 && ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(inside) {
        return Ok(());
    }
    let message = format!("`{}` is not the name of a PyPI package", printable(name));
    Err(failure(Reason::ConfigInvalid, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_lock_whatever_the_spelling() {
        let content = "anyio==4.0.0 \\\n    --hash=sha256:aa\nmcp-server-time==2026.1.0 ; python_version > '3' \\\n";
        assert_eq!(locked_version(content, "MCP_Server.Time").as_deref(), Some("2026.1.0"));
    }

    #[test]
    fn a_lock_holds_nothing_but_versions_of_the_index() {
        let good =
            "# made by uv\nanyio==4.0.0 ; python_version > '3' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n";
        assert!(check_lock(good).is_ok());
        for bad in [
            "x @ http://127.0.0.1/x.whl",
            "http://127.0.0.1/x.whl",
            "-e .",
            "--extra-index-url http://127.0.0.1/simple",
            "--find-links .",
            "-r other.txt",
            "./x",
            "x",
            "x==1 --index-url http://127.0.0.1",
        ] {
            assert!(check_lock(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wanted_beside_a_package_is_resolved_with_it_and_names_no_other_place() {
        let lines = |with: &[&str]| {
            let package = serde_json::json!({ "identifier": "a", "version": "1.0", "with": with });
            requirements(&serde_json::from_value(package).expect("a package")).map_err(|failure| failure.reason)
        };
        assert_eq!(lines(&[]).as_deref(), Ok("a==1.0"));
        assert_eq!(lines(&["mcp < 2", "b[c]"]).as_deref(), Ok("a==1.0\nmcp<2\nb[c]"));
        for bad in ["-r /etc/passwd", "./b", "b @ http://127.0.0.1/b.whl", "b\n--index-url http://127.0.0.1", ""] {
            assert_eq!(lines(&[bad]), Err(Reason::ConfigInvalid), "{bad}");
        }
        assert_eq!(lines(&["b"; requirement::MOST + 1]), Err(Reason::ConfigInvalid));
    }

    #[test]
    fn only_names_of_the_index_are_taken() {
        assert!(check_name("mcp-server-time").is_ok());
        for bad in ["", "-e", "./x", "a @ https://x", "a[b]", "a==1", "a b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
