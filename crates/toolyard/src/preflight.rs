//! What `toolyard serve` would refuse of its settings, found before it touches anything.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::{local, net};

/// Every setting that a start is refused for, each with why: those that stand in each other's way, in production the
/// insecure ones, and those that this host has nothing for. What can be told of a value alone was told when it was loaded.
/// Starting again changes none of it.
pub(crate) fn refused(settings: &Settings, environment: &BTreeMap<String, String>) -> Vec<String> {
    let mut refused: Vec<String> = settings.refused().iter().map(ToString::to_string).collect();
    refused.extend(net::check(settings));
    if settings.local_toolbox {
        refused.extend(local::check(settings, environment));
    }
    refused
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
        settings.ca_bundle = Some(dir.path().join("none.pem"));
        for (name, found) in ["ca_bundle", "grantable_paths", "package_hosts"].iter().zip(refused(&settings)) {
            assert!(found.starts_with(&format!("setting `{name}`: ")), "{found}");
        }
        // No servers run on this machine then.
        settings.local_toolbox = false;
        assert_eq!(refused(&settings).len(), 1);
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").expect("a file");
        settings.ca_bundle = Some(empty);
        assert!(refused(&settings).concat().contains("no PEM certificates"));
    }
}
