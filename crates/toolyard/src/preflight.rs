//! What `toolyard serve` would refuse of its settings, found before it touches anything.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::config::Settings;
use crate::{installation, local, net};

/// Every setting that a start is refused for, each with why: those that stand in each other's way, in production the
/// insecure ones, and those that this host has nothing for. What can be told of a value alone was told when it was loaded.
/// Only somebody who changes the settings or what they name changes any of it; what may pass by itself is [`unreadable`].
pub(crate) fn refused(settings: &Settings, environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut refused: Vec<String> = settings.refused().iter().map(ToString::to_string).collect();
    if installation::is_agents(&settings.data_dir) {
        refused.push(format!(
            "setting `data_dir`: `{}` is the data directory of an agent (`toolyard dtma`); give the control plane one of its \
             own with `--data-dir` or `TOOLYARD_DATA_DIR`",
            settings.data_dir.display()
        ));
    }
    refused.extend(net::check(settings));
    if settings.local_toolbox {
        refused.extend(local::check(settings, environment));
    }
    refused
}

/// What a start fails for and a later one may not, as a file on a mount that comes later; it names the setting.
pub(crate) fn unreadable(settings: &Settings) -> Option<String> {
    net::unreadable(settings).or_else(|| {
        let why = unusable(&settings.data_dir)?;
        Some(format!(
            "setting `data_dir`: {why}; give it to the user that Toolyard runs as, or name another directory with \
             `--data-dir` or `TOOLYARD_DATA_DIR`"
        ))
    })
}

/// Why this user can neither use a directory nor make it. Nothing is made to find out, so what else may fail is found out
/// when it is made.
pub(crate) fn unusable(dir: &Path) -> Option<String> {
    let (there, shown) = (nearest(dir), dir.display());
    let (what, wanted) = if there == dir {
        ("use", AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK)
    } else {
        ("make", AccessFlags::W_OK | AccessFlags::X_OK)
    };
    if !there.is_dir() {
        return Some(format!("cannot {what} the data directory `{shown}`: `{}` is no directory", there.display()));
    }
    match faccessat(AT_FDCWD, there, wanted, AtFlags::AT_EACCESS) {
        Err(error @ (Errno::EACCES | Errno::EROFS)) => {
            Some(format!("cannot {what} the data directory `{shown}`: {}", io::Error::from(error)))
        }
        _ => None,
    }
}

/// The directory itself where it is there, else the nearest above it that is: the current one for a relative path.
pub(crate) fn nearest(dir: &Path) -> &Path {
    let mut above = dir.ancestors().filter(|above| !above.as_os_str().is_empty());
    above.find(|above| above.exists()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn what_a_start_would_fail_for_is_named_before_anything_is_made() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::defaults(Environment::Development);
        let refused = |settings: &Settings| refused(settings, &BTreeMap::new());
        assert_eq!(refused(&settings), Vec::<String>::new());
        settings.grantable_paths = vec!["srv".into()];
        settings.package_hosts = vec!["https://files.example/x".into()];
        settings.closed_ports = vec!["5432".into(), "65536".into()];
        let found = refused(&settings);
        assert_eq!(found.len(), 3, "{found:?}");
        for (name, found) in ["grantable_paths", "package_hosts", "closed_ports"].iter().zip(found) {
            assert!(found.starts_with(&format!("setting `{name}`: ")), "{found}");
        }
        // No servers run on this machine then.
        settings.local_toolbox = false;
        assert_eq!(refused(&settings), Vec::<String>::new());
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").expect("a file");
        settings.ca_bundle = Some(empty);
        assert!(refused(&settings).concat().contains("no PEM certificates"));
        assert_eq!(unreadable(&settings), None);
    }

    #[test]
    fn a_control_plane_takes_no_data_directory_of_an_agent() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::defaults(Environment::Development);
        settings.data_dir = dir.path().to_owned();
        let refused = |settings: &Settings| refused(settings, &BTreeMap::new()).concat();
        // That of its own toolbox is below its own.
        std::fs::create_dir(dir.path().join("toolbox")).expect("made");
        std::fs::write(dir.path().join("toolbox/agent.lock"), "").expect("written");
        assert_eq!(refused(&settings), "");
        for mark in ["agent.lock", "identity"] {
            std::fs::create_dir(dir.path().join(mark)).expect("made");
            let told = refused(&settings);
            assert!(told.starts_with("setting `data_dir`: `") && told.contains("--data-dir"), "{told}");
            std::fs::remove_dir(dir.path().join(mark)).expect("removed");
        }
        std::fs::write(dir.path().join("agent.lock"), "").expect("written");
        std::fs::write(dir.path().join("toolyard.db"), "").expect("written");
        assert_eq!(refused(&settings), "", "a control plane uses it already");
    }

    #[test]
    fn a_ca_bundle_that_cannot_be_read_may_be_there_later() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::defaults(Environment::Development);
        assert_eq!(unreadable(&settings), None);
        settings.ca_bundle = Some(dir.path().join("none.pem"));
        assert_eq!(refused(&settings, &BTreeMap::new()), Vec::<String>::new());
        let told = unreadable(&settings).expect("it is not there");
        assert!(told.starts_with("setting `ca_bundle`: cannot read"), "{told}");
    }

    #[test]
    fn a_data_directory_that_cannot_be_made_is_told_by_its_setting_and_nothing_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::defaults(Environment::Production);
        settings.data_dir = dir.path().join("not/there/yet");
        assert_eq!(unreadable(&settings), None);
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("a file");
        for (data_dir, why) in
            [(file.join("data"), "cannot make the data directory `"), (file, "cannot use the data directory `")]
        {
            settings.data_dir = data_dir;
            let told = unreadable(&settings).unwrap_or_default();
            assert!(told.starts_with(&format!("setting `data_dir`: {why}")), "{told}");
            assert!(told.contains("--data-dir") && told.contains("TOOLYARD_DATA_DIR"), "{told}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn a_relative_directory_is_made_in_the_current_one() {
        for (dir, above) in
            [("toolyard-none", "."), ("toolyard-none/x", "."), ("/toolyard-none/x", "/"), ("src", "src")]
        {
            assert_eq!(nearest(Path::new(dir)), Path::new(above), "{dir}");
        }
    }
}
