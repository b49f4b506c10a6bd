//! npm packages: a lock made and installed by npm, started as `node <script>`.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolyard_types::agent::Failure;
use toolyard_types::name::printable;
use toolyard_types::spec::{Lock, Package};
use toolyard_types::state::Reason;

use super::client::{Clients, Output};
use super::store::{INSTALL_TIMEOUT, RESOLVE_TIMEOUT, hand_in, lock, read_made};
use super::{Given, failure};
use crate::engine::Progress;
use crate::process::remove::remove_all;

/// A person's own npm settings hold, except those under which this could not work.
const SETTINGS: &[&str] = &[
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--omit=dev",
    "--package-lock",
    "--no-global",
    "--install-strategy=hoisted",
    "--no-dry-run",
    // What went wrong is read off what it says: of a file that it leaves out it only warns, and colors split its words.
    "--loglevel=warn",
    "--no-color",
    // No file of an archive keeps its set-user-id and set-group-id bits: where clients may not set them (`seccomp`) npm
    // would leave that file out and go on.
    "--umask=06022",
];
/// A lock says no address of a registry: whoever installs from it has registries of their own.
const NO_ADDRESSES: &str = "--omit-lockfile-registry-resolved";
/// The first npm that installs tarballs of its registries and no others when told so: 11.14 refuses every tarball, and
/// with the two after it a `npm-shrinkwrap.json` inside a package may name any address.
const STRICT: (u32, u32) = (11, 17);

/// How npm says that a package cannot be had as it is, beside `EALLOW...` for a place outside the registries, however often
/// it is asked for: a tarball at an address that is none or below what is no directory, and a name that no file can have.
const NEVER: &[&str] = &["EUNSUPPORTEDPROTOCOL", "EINVALIDTAGNAME", "ENOTDIR", "ENAMETOOLONG"];

/// Why npm leaves a file of a package out. It only warns of that, and may say of the package that it is installed.
const UNWRITTEN: &[&str] =
    &["EPERM", "EACCES", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "EROFS", "EINVAL", "ENAMETOOLONG"];

/// A `package-lock.json` as far as we look into it.
#[derive(Deserialize)]
struct LockFile {
    #[serde(default)]
    packages: Map<String, Value>,
}

/// Makes the full lock of a package with npm, in the empty directory `scratch`.
///
/// # Errors
/// When there is no such package or version, or npm fails.
pub(super) async fn resolve(
    clients: &Clients,
    package: &Package,
    scratch: &Path,
    log: Progress<'_>,
) -> Result<Lock, Failure> {
    check_name(&package.identifier)?;
    check_version(&package.version)?;
    let version = if package.version.is_empty() { "latest" } else { &package.version };
    write_project(scratch, &json!({ (&package.identifier): version }))?;
    let output = make_lock(clients, scratch, log).await?;
    check(&output)?;
    let content = read_made(&scratch.join("package-lock.json"))?;
    let parsed = parse(&content, clients.given())?;
    let version = parsed.packages.get(&format!("node_modules/{}", package.identifier));
    let version = version.and_then(|entry| entry.get("version")?.as_str()).unwrap_or_default().to_owned();
    Ok(lock(version, content))
}

/// Makes the lock of the project in `scratch`.
///
/// npm looks into a package that brings others with it (`bundleDependencies`, a shrinkwrap). While it makes only a lock
/// it fetches that package by its address, which is refused like any other: `allow_remote` is `none`, `root` or `all`,
/// and only `all` would do. An installation knows the registries' own tarballs and goes on refusing every other
/// address, so such a package is installed once for its lock. Allowing all addresses instead would leave no wall where
/// the host gives clients no network of their own.
async fn make_lock(clients: &Clients, scratch: &Path, log: Progress<'_>) -> Result<Output, Failure> {
    let only_lock = ["install", "--package-lock-only", NO_ADDRESSES];
    let mut output = run(clients, &only_lock, scratch, RESOLVE_TIMEOUT, log).await?;
    if output.success || !output.stderr.contains("code EALLOWREMOTE") {
        return Ok(output);
    }
    let version = clients.npm(&["--version"], scratch, RESOLVE_TIMEOUT).await?;
    if !is_strict(&String::from_utf8_lossy(&version.stdout)) {
        let (major, minor) = STRICT;
        output.stderr.push_str(&format!("\na package that brings others with it takes npm {major}.{minor} or newer\n"));
        return Ok(output);
    }
    log("npm: installing it once for its lock, as it may bring other packages with it");
    let whole = ["install", "--no-package-lock-only", NO_ADDRESSES];
    let output = run(clients, &whole, scratch, INSTALL_TIMEOUT, log).await?;
    let installed = scratch.join("node_modules");
    // It may be large. What stays goes with the workshop.
    let _ = tokio::task::spawn_blocking(move || remove_all(&installed)).await;
    Ok(output)
}

/// Whether an npm of this version installs from its registries only, when told so.
fn is_strict(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (major, minor) >= STRICT
}

async fn run(
    clients: &Clients,
    arguments: &[&str],
    dir: &Path,
    timeout: Duration,
    log: Progress<'_>,
) -> Result<Output, Failure> {
    let arguments: Vec<&str> = arguments.iter().chain(SETTINGS).copied().collect();
    let output = clients.npm(&arguments, dir, timeout).await?;
    output.tell("npm", log);
    Ok(output)
}

/// Installs exactly what `lock` names into the empty directory `dir`.
///
/// # Errors
/// When the lock is not whole, a file is not the one it names, or npm fails.
pub(super) async fn install(clients: &Clients, lock: &Lock, dir: &Path, log: Progress<'_>) -> Result<(), Failure> {
    let parsed = parse(&lock.content, clients.given())?;
    let root = parsed.packages.get("").and_then(|root| root.get("dependencies")).cloned().unwrap_or_default();
    write_project(dir, &root)?;
    hand_in(&dir.join("package-lock.json"), &lock.content)?;
    check(&run(clients, &["ci"], dir, INSTALL_TIMEOUT, log).await?)
}

/// The script to start, found in the package's own `package.json`.
///
/// # Errors
/// When the package has no such executable.
pub(super) fn script(dir: &Path, package: &Package) -> Result<PathBuf, Failure> {
    let home = dir.join("node_modules").join(&package.identifier);
    let unreadable = |error: &dyn std::error::Error| {
        let message = format!("read the `package.json` of `{}`: {error}", package.identifier);
        failure(Reason::InstallFailed, message)
    };
    let text = std::fs::read(home.join("package.json")).map_err(|error| unreadable(&error))?;
    let manifest: Value = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
    let short = package.identifier.rsplit('/').next().unwrap_or_default();
    let wanted = package.command.as_deref();
    let path = match manifest.get("bin") {
        Some(Value::String(path)) if wanted.is_none_or(|wanted| wanted == short) => Some(path.as_str()),
        Some(Value::Object(scripts)) => choose(scripts, wanted, short),
        _ => None,
    };
    let Some(path) = path else {
        let message = format!("package `{}` has no executable `{}`", package.identifier, wanted.unwrap_or(short));
        return Err(failure(Reason::ConfigInvalid, message));
    };
    // Looked at before anything is there: what lies outside is not to be found by asking.
    if leads_out(Path::new(path)) {
        return Err(outside(path));
    }
    let script = std::fs::canonicalize(home.join(path)).map_err(|error| unusable(path, &error))?;
    let root = std::fs::canonicalize(dir).map_err(|error| unusable(path, &error))?;
    if script.starts_with(&root) { Ok(script) } else { Err(outside(path)) }
}

/// Whether a path, as it is written, leaves the directory that it is in.
fn leads_out(path: &Path) -> bool {
    let mut depth = 0_i32;
    path.components().any(|part| {
        depth += match part {
            Component::Normal(_) => 1,
            Component::ParentDir => -1,
            Component::CurDir => 0,
            Component::RootDir | Component::Prefix(_) => return true,
        };
        depth < 0
    })
}

fn outside(path: &str) -> Failure {
    let message = format!("the package's executable `{}` leads out of the package", printable(path));
    failure(Reason::ConfigInvalid, message)
}

fn unusable(path: &str, error: &std::io::Error) -> Failure {
    let path = printable(path);
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("the package's executable `{path}` is not in the package");
            failure(Reason::ConfigInvalid, message)
        }
        _ => failure(Reason::InstallFailed, format!("use the package's executable `{path}`: {error}")),
    }
}

fn choose<'a>(scripts: &'a Map<String, Value>, wanted: Option<&str>, short: &str) -> Option<&'a str> {
    let named = |name: &str| scripts.get(name).and_then(Value::as_str);
    match wanted {
        Some(name) => named(name),
        None => named(short).or_else(|| match scripts.len() {
            1 => scripts.values().next().and_then(Value::as_str),
            _ => None,
        }),
    }
}

/// Reads a lock that names nothing but packages of registries, each by its checksum.
fn parse(content: &str, given: &Given) -> Result<LockFile, Failure> {
    let parsed: LockFile = serde_json::from_str(content)
        .map_err(|error| failure(Reason::InstallFailed, format!("read the lock: {error}")))?;
    for (path, entry) in parsed.packages.iter().filter(|(path, _)| !path.is_empty()) {
        let bundled = entry.get("inBundle").is_some();
        if !bundled && entry.get("integrity").and_then(Value::as_str).is_none_or(str::is_empty) {
            let message = format!("the lock has no checksum for `{}`", printable(path));
            return Err(failure(Reason::InstallFailed, message));
        }
        if let Some(elsewhere) = elsewhere(entry, given) {
            let message = format!(
                "package `{}` wants `{}`, which is not in a configured registry",
                printable(path.trim_start_matches("node_modules/")),
                printable(&elsewhere)
            );
            return Err(failure(Reason::ConfigInvalid, message));
        }
    }
    Ok(parsed)
}

/// Where a package, or one that it depends on, comes from, if not from a registry.
fn elsewhere(entry: &Value, given: &Given) -> Option<String> {
    if entry.get("link").and_then(Value::as_bool) == Some(true) {
        return Some("a link".into());
    }
    let resolved = entry.get("resolved").and_then(Value::as_str);
    if let Some(resolved) = resolved.filter(|resolved| !given.is_registry(resolved)) {
        return Some(resolved.to_owned());
    }
    // What is in the package's own tarball is taken as it is there, or goes without: npm never looks for it anywhere.
    let bundled = entry.get("bundleDependencies").and_then(Value::as_array);
    let is_bundled = |name: &str| bundled.into_iter().flatten().any(|it| it.as_str() == Some(name));
    let maps = ["dependencies", "optionalDependencies"].into_iter().filter_map(|name| entry.get(name)?.as_object());
    let mut asked = maps.flatten().filter(|(name, _)| !is_bundled(name)).filter_map(|(_, asked)| asked.as_str());
    asked.find(|asked| is_place(asked)).map(str::to_owned)
}

/// Whether what a package asks for is a place and not a version of a package: an address, a path, or a repository.
fn is_place(asked: &str) -> bool {
    let asked = asked.strip_prefix("npm:").map_or(asked, |alias| alias.strip_prefix('@').unwrap_or(alias));
    // An alias names a package, whose scope has a slash.
    let alias = asked.split_once('/').filter(|_| !asked.contains(':') && asked.contains('@'));
    asked.contains(':') || (asked.contains('/') && alias.is_none())
}

fn write_project(dir: &Path, dependencies: &Value) -> Result<(), Failure> {
    let project =
        json!({ "name": "toolyard-store", "version": "0.0.0", "private": true, "dependencies": dependencies });
    hand_in(&dir.join("package.json"), &project.to_string())
}

fn check(output: &Output) -> Result<(), Failure> {
    if output.success && !leaves_out(output) {
        return Ok(());
    }
    let code = |word: &str| output.stderr.contains(&format!("code {word}"));
    let reason = if code("E404") || code("ETARGET") || code("ENOVERSIONS") {
        Reason::PackageNotFound
    } else if code("EALLOW") || output.is_refused() || NEVER.iter().any(|word| code(word)) || is_of_a_file(output) {
        Reason::ConfigInvalid
    } else if code("EINTEGRITY") {
        Reason::ChecksumMismatch
    } else {
        Reason::InstallFailed
    };
    Err(failure(reason, output.complaint()))
}

/// Whether a file of a package could not be written.
fn leaves_out(output: &Output) -> bool {
    let mut told = output.stderr.lines().filter_map(|line| Some(line.split_once("TAR_ENTRY_ERROR ")?.1));
    told.any(|why| UNWRITTEN.iter().any(|code| why.starts_with(code)))
}

/// Whether a package's tarball is said to be a file of this host, where npm does not know that it may not be.
fn is_of_a_file(output: &Output) -> bool {
    output.stderr.lines().any(|line| line.contains("tarball data for ") && line.contains("@file:"))
}

/// Only names from the registry: no paths, addresses or aliases.
fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '_', '-'])
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
    };
    let good = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| plain(scope) && plain(name)),
        None => plain(name),
    };
    if good && name.len() <= 214 {
        return Ok(());
    }
    let message = format!("`{}` is not the name of an npm package", printable(name));
    Err(failure(Reason::ConfigInvalid, message))
}

/// An exact version or a tag: no ranges, paths or addresses.
pub(super) fn check_version(version: &str) -> Result<(), Failure> {
    if version.len() <= 100
        && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '!'))
    {
        return Ok(());
    }
    let message = format!("`{}` is not an exact version", printable(version));
    Err(failure(Reason::ConfigInvalid, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_registry_are_taken() {
        for good in ["left-pad", "@scope/name", "a.b_c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "/etc", "file:x", "git+ssh://x", "@scope", "@a/b/c", "a b", "-g", "http://x/y.tgz"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_version("1.0.0-rc.1+x").is_ok());
        assert!(check_version("file:../x").is_err());
        assert!(check_version("^1").is_err());
    }

    #[test]
    fn an_executable_that_leads_out_of_its_package_or_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("node_modules/a");
        std::fs::create_dir_all(home.join("bin")).expect("made");
        std::fs::write(home.join("bin/in.js"), "").expect("written");
        std::os::unix::fs::symlink("/etc/hostname", home.join("bin/link.js")).expect("linked");
        let of = |bin: &str| {
            std::fs::write(home.join("package.json"), json!({ "bin": bin }).to_string()).expect("written");
            let package = Package {
                identifier: "a".into(),
                ..serde_json::from_value(json!({ "identifier": "a" })).expect("a package")
            };
            script(dir.path(), &package).map_err(|failure| (failure.reason, failure.message))
        };
        assert!(of("./bin/../bin/in.js").is_ok());
        for out in ["../../../../none/x.js", "bin/../../b/x.js", "/etc/hostname", "bin/link.js"] {
            let message = format!("the package's executable `{out}` leads out of the package");
            assert_eq!(of(out), Err((Reason::ConfigInvalid, message)));
        }
        let message = "the package's executable `bin/none.js` is not in the package".to_owned();
        assert_eq!(of("bin/none.js"), Err((Reason::ConfigInvalid, message)));
        std::fs::remove_file(home.join("package.json")).expect("removed");
        assert!(
            script(dir.path(), &serde_json::from_value(json!({ "identifier": "a" })).expect("a package"))
                .is_err_and(|failure| failure.message.contains("package.json"))
        );
    }

    #[test]
    fn an_npm_that_installs_from_any_address_is_known_by_its_version() {
        for good in ["11.17.0", "11.19.1\n", "12.0.0-pre.1", "100.0.0"] {
            assert!(is_strict(good), "{good}");
        }
        for bad in ["", "npm", "11.14.1", "11.16.0", "10.99.0", "11"] {
            assert!(!is_strict(bad), "{bad}");
        }
    }

    #[test]
    fn a_package_that_can_never_be_installed_is_told_from_one_that_can_later() {
        let of = |stderr: &str| {
            let mut output = Output { success: false, stdout: vec![], stderr: stderr.into(), refused: vec![] };
            output.tell_refused(&["files.example:80".to_owned()]);
            check(&output).map_err(|failure| failure.reason)
        };
        for never in [
            "npm error code EALLOWREMOTE\nnpm error Fetching packages of type \"remote\" have been disabled",
            "npm error code E403\nnpm error 403 403 Forbidden - GET http://files.example/f.tgz",
            "npm warn tarball tarball data for a@file:/x.tgz (sha512-x) seems to be corrupted. Trying again.\n\
             npm error code ENOENT\nnpm error syscall open\nnpm error path /x.tgz",
            "npm warn tarball tarball data for a@file:/x.tgz (sha512-x) seems to be corrupted. Trying again.\n\
             npm error code EINTEGRITY",
            "npm ERR! code ENOTDIR\nnpm ERR! syscall open\nnpm ERR! path /etc/passwd/package.json",
            "npm error code ENAMETOOLONG\nnpm error syscall open",
            "npm error code EUNSUPPORTEDPROTOCOL\nnpm error Unsupported URL Type \"ftp:\": ftp://files.example/f.tgz",
        ] {
            assert_eq!(of(never), Err(Reason::ConfigInvalid), "{never}");
        }
        for later in [
            "npm error code E403\nnpm error 403 403 Forbidden - GET https://registry.example/f.tgz",
            "npm error code ENOENT\nnpm error syscall open\nnpm error path /cache/x",
            "npm error code ENOSPC",
            "npm error code ETIMEDOUT",
        ] {
            assert_eq!(of(later), Err(Reason::InstallFailed), "{later}");
        }
        assert_eq!(of("npm error code EINTEGRITY"), Err(Reason::ChecksumMismatch));
    }

    #[test]
    fn a_package_of_which_a_file_could_not_be_written_is_not_installed() {
        let of = |line: &str| {
            let output = Output { success: true, stdout: vec![], stderr: format!("{line}\n"), refused: vec![] };
            check(&output).map_err(|failure| (failure.reason, failure.message))
        };
        for left_out in [
            "npm warn tar TAR_ENTRY_ERROR ENOSPC: no space left on device, write",
            "npm WARN tar TAR_ENTRY_ERROR EPERM: operation not permitted, open '/x'",
            "npm warn tar TAR_ENTRY_ERROR ENAMETOOLONG: name too long, open '/x'",
            "npm warn tar TAR_ENTRY_ERROR EROFS: read-only file system, mkdir '/x'",
            "npm warn tar TAR_ENTRY_ERROR ENFILE: file table overflow, open '/x'",
            "npm warn tar TAR_ENTRY_ERROR EINVAL: invalid argument, open '/x'",
        ] {
            assert_eq!(of(left_out), Err((Reason::InstallFailed, left_out.to_owned())));
        }
        for whole in ["", "npm warn deprecated a@1.0.0: EPERM", "npm warn tar TAR_ENTRY_INFO stripping / from path"] {
            assert_eq!(of(whole), Ok(()), "{whole}");
        }
    }

    #[test]
    fn a_lock_without_a_checksum_is_refused() {
        let content = r#"{"packages":{"":{},"node_modules/a":{"version":"1.0.0"}}}"#;
        let refused = parse(content, &Given::default()).err();
        assert_eq!(refused.map(|failure| failure.reason), Some(Reason::InstallFailed));
    }

    #[test]
    fn a_lock_that_names_a_place_outside_the_registries_is_refused() {
        let given = Given::of(&std::collections::BTreeMap::new(), &[]);
        let refused = |more: Value| {
            let mut entry = json!({ "version": "1.0.0", "integrity": "sha512-x" });
            more.as_object().expect("an object").iter().for_each(|(key, value)| entry[key] = value.clone());
            let content = json!({ "packages": { "": {}, "node_modules/a": entry } }).to_string();
            parse(&content, &given).err().map(|failure| failure.message)
        };
        for good in [
            json!({}),
            json!({ "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz" }),
            json!({ "dependencies": { "b": "^1.0.0 || 2.x", "c": "npm:d@1.0.0", "e": "npm:@f/g@^1", "h": "latest", "i": "*" } }),
            json!({ "dependencies": { "b": "file:../b" }, "bundleDependencies": ["b"] }),
        ] {
            assert_eq!(refused(good.clone()), None, "{good}");
        }
        for bad in [
            json!({ "resolved": "http://127.0.0.1/a.tgz" }),
            json!({ "resolved": "git+ssh://git@github.com/a/b.git#0" }),
            json!({ "resolved": "file:../x" }),
            json!({ "link": true }),
            json!({ "dependencies": { "b": "http://127.0.0.1/b.tgz" } }),
            json!({ "dependencies": { "b": "git+http://127.0.0.1/b" } }),
            json!({ "optionalDependencies": { "b": "github:a/b" } }),
            json!({ "dependencies": { "b": "a/b" } }),
            json!({ "dependencies": { "b": "file:x" } }),
            json!({ "dependencies": { "b": "../x" } }),
            json!({ "dependencies": { "b": "file:../b", "c": "file:../c" }, "bundleDependencies": ["b"] }),
            json!({ "resolved": "http://127.0.0.1/a.tgz", "inBundle": true }),
            json!({ "dependencies": { "b": "http://127.0.0.1/b.tgz" }, "inBundle": true }),
        ] {
            assert!(refused(bad.clone()).is_some(), "{bad}");
        }
    }
}
