//! What `toolyard serve` would refuse of its settings, found before it touches anything.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::{local, net};

/// Every setting that a start is refused for, each with why: those that stand in each other's way, in production the
/// insecure ones, and those that this host has nothing for. What can be told of a value alone was told when it was loaded.
/// Only somebody who changes the settings or what they name changes any of it; what may pass by itself is [`unreadable`].
pub(crate) fn refused(settings: &Settings, environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut refused: Vec<String> = settings.refused().iter().map(ToString::to_string).collect();
    refused.extend(net::check(settings));
    if settings.local_toolbox {
        refused.extend(local::check(settings, environment));
    }
    refused
}

/// What a start fails for and a later one may not, as a file on a mount that comes later; it names the setting.
pub(crate) fn unreadable(settings: &Settings) -> Option<String> {
    net::unreadable(settings)
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
        let found = refused(&settings);
        assert_eq!(found.len(), 2, "{found:?}");
        for (name, found) in ["grantable_paths", "package_hosts"].iter().zip(found) {
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
}
