//! The list that comes with Toolyard, so that a fresh or air-gapped install is useful at once.
//!
//! `curated.json` has the form of a registry's answer. `make catalog-proof` starts every npm and PyPI entry
//! and writes down what it answered. A remote has no version of its own; the list counts its changes.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The list as embedded.
pub(crate) const CURATED: &str = include_str!("curated.json");

/// The list's digest, which changes with it.
pub(crate) fn digest() -> String {
    Sha256::digest(CURATED.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The documents.
pub(crate) fn documents() -> Vec<Value> {
    let list: Value = serde_json::from_str(CURATED).expect("the embedded list is JSON, as a test checks");
    let servers = list.get("servers").and_then(Value::as_array).cloned().unwrap_or_default();
    servers.into_iter().filter_map(|mut item| item.get_mut("server").map(Value::take)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::entry::{categories, kinds};
    use crate::catalog::validate::validate;

    #[test]
    fn every_curated_document_is_valid_pinned_and_has_a_category() {
        let documents = documents();
        assert!(documents.len() >= 30, "{}", documents.len());
        for document in &documents {
            let name = document["name"].as_str().expect("a name");
            let (server, found) = validate(document);
            let server = server.expect("storable");
            assert!(found.errors.is_empty() && found.warnings.is_empty(), "{name}: {found:?}");
            assert!(!categories(&server).is_empty(), "{name} has no category");
            assert!(server.packages.iter().all(|package| package.registry_base_url.is_none()), "{name}");
        }
    }

    #[test]
    fn the_curated_list_covers_every_kind_and_has_the_two_reference_names() {
        let documents: Vec<_> = documents().iter().filter_map(|document| validate(document).0).collect();
        for kind in ["npm", "pypi", "oci", "remote"] {
            assert!(documents.iter().any(|document| kinds(document).contains(&kind.to_owned())), "{kind}");
        }
        let packaged =
            documents.iter().filter(|document| kinds(document).iter().any(|kind| kind == "npm" || kind == "pypi"));
        assert!(packaged.count() >= 20);
        for name in ["io.github.modelcontextprotocol/server-everything", "io.github.modelcontextprotocol/server-time"] {
            assert!(documents.iter().any(|document| document.name == name), "{name}");
        }
    }

    /// A package is read-only, and its home goes with each instance.
    #[test]
    fn a_server_that_would_keep_its_state_in_its_package_asks_for_another_place() {
        let documents: Vec<_> = documents().iter().filter_map(|document| validate(document).0).collect();
        let memory = documents.iter().find(|document| document.name.ends_with("/server-memory")).expect("it is there");
        let [file] = &memory.packages[0].environment_variables[..] else { panic!("one variable: {memory:?}") };
        assert!(file.name == "MEMORY_FILE_PATH" && file.input.is_required && file.input.default.is_none());
    }
}
