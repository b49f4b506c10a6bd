//! The allowed edges between our crates, compared with what `cargo metadata` says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Which of our crates each crate may use. A new edge is a decision: change it here and in
/// `docs/ARCHITECTURE.md`, section 3, in the same commit.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("mcp", &["types"]),
    ("store", &["types"]),
    ("policy", &["types"]),
    ("link", &["types"]),
    ("control", &["types", "store", "policy", "link", "mcp"]),
    ("dtma", &["types", "link", "mcp"]),
    ("gateway", &["types", "policy", "link", "mcp"]),
    ("client", &["types"]),
    ("toolyard", &["types", "store", "policy", "link", "control", "mcp", "dtma", "gateway", "client"]),
    ("testkit", &["types", "mcp"]),
    ("bench", &["types", "link"]),
    ("fleet-tests", &["types", "client"]),
    ("test-support", &["types", "client", "testkit"]),
    ("security-tests", &[]),
    ("faults-tests", &[]),
    ("xtask", &[]),
];

/// Crates that tests of any crate may use besides its own edges.
const FOR_TESTS: &[&str] = &["testkit", "test-support"];

/// Fails with every edge that is not allowed.
pub(crate) fn check() -> Result<()> {
    let output = std::process::Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("running cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let problems = violations(&metadata)?;
    if problems.is_empty() {
        println!("edges: every dependency between our crates is allowed");
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = short(package["name"].as_str().context("a package without a name")?);
        let Some(uses) = allowed.get(name) else {
            problems.push(format!("crate `{name}` is not in the list of edges (xtask/src/edges.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let Some(used) = ours(dependency, &allowed) else { continue };
            let test_only = dependency["kind"] == "dev" && FOR_TESTS.contains(&used);
            let own_tests = dependency["kind"] == "dev" && used == name;
            if !uses.contains(used) && !test_only && !own_tests {
                problems.push(format!("crate `{name}` must not use `{used}` (docs/ARCHITECTURE.md, section 3)"));
            }
        }
    }
    Ok(problems)
}

fn ours<'a>(dependency: &'a Value, allowed: &BTreeMap<&str, BTreeSet<&str>>) -> Option<&'a str> {
    dependency["path"].as_str()?;
    let name = short(dependency["name"].as_str()?);
    allowed.contains_key(name).then_some(name)
}

fn short(name: &str) -> &str {
    name.strip_prefix("toolyard-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_edge_that_is_not_allowed_is_named_with_both_ends() {
        let metadata = json!({ "packages": [
            { "name": "toolyard-gateway", "dependencies": [
                { "name": "toolyard-types", "path": "x", "kind": null },
                { "name": "toolyard-store", "path": "x", "kind": null },
                { "name": "toolyard-testkit", "path": "x", "kind": "dev" },
                { "name": "serde", "path": null, "kind": null } ] } ] });
        let problems = violations(&metadata).expect("metadata");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("`gateway`") && problems[0].contains("`store`"));
    }
}
