//! The fleet's test server as an npm package in a registry of the test's own, and as a catalog entry.
//!
//! | argument | what is wrong with it |
//! | --- | --- |
//! | none | nothing; tools `echo`, `who`, `wait`, `exit`, `eat`, `dial`, `tunnel` |
//! | `crash` | it ends at once with code 3 |
//! | `lose-tool` | it has no tool `wait` |
//! | `slow=MS` | it answers `initialize` that late |
//! | `crash-after=MS` | it ends that long after its first tool call, which comes with the switch of traffic |
//! | `eat=BYTES` | it takes that much memory once it runs |

use std::net::IpAddr;

use serde_json::{Value, json};
use toolyard_testkit::npm_registry::{NpmPackage, NpmRegistry};

/// The name of the catalog entry.
pub(crate) const FIXTURE: &str = "com.example/fleet-fixture";
const PACKAGE: &str = "fleet-fixture";
const VERSION: &str = "1.0.0";

/// The package, served as long as this lives.
pub(crate) struct Registry {
    runtime: tokio::runtime::Runtime,
    registry: NpmRegistry,
}

impl Registry {
    /// Serves it at an address that the hosts of the test reach.
    pub(crate) fn start(address: IpAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let registry = runtime.block_on(NpmRegistry::start_on(address, vec![package()])).expect("a registry");
        Self { runtime, registry }
    }

    /// For `npm_config_registry`.
    pub(crate) fn url(&self) -> String {
        let _entered = self.runtime.enter();
        self.registry.url()
    }
}

fn package() -> NpmPackage {
    let manifest = json!({ "name": PACKAGE, "version": VERSION, "bin": { PACKAGE: "server.js" } });
    NpmPackage {
        name: PACKAGE.into(),
        version: VERSION.into(),
        files: vec![
            ("package.json".into(), manifest.to_string().into_bytes()),
            ("server.js".into(), include_bytes!("server.js").to_vec()),
        ],
    }
}

/// What is published in the catalog.
pub(crate) fn entry() -> Value {
    json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": FIXTURE,
        "description": "The server that the fleet's tests deploy",
        "version": VERSION,
        "packages": [{
            "registryType": "npm",
            "identifier": PACKAGE,
            "version": VERSION,
            "transport": { "type": "stdio" },
        }],
    })
}
