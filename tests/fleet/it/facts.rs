//! What a scenario observed, for the report: `make fleet` gathers the files into `docs/reports/fleet.md`.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use toolyard_types::Clock;

use crate::network;

/// The facts of one scenario. Written only when it passed, and only in a full run.
pub(crate) struct Facts {
    order: u32,
    scenario: &'static str,
    observed: Vec<String>,
}

impl Facts {
    /// `order` is its place in the report.
    pub(crate) fn of(order: u32, scenario: &'static str) -> Self {
        Self { order, scenario, observed: Vec::new() }
    }

    /// The same, for a scenario whose hosts are network namespaces. `None` on a machine that is said to have none: then
    /// the report says what was not proven.
    pub(crate) fn on_hosts(self, claim: &str) -> Option<Self> {
        if !network::forbidden() {
            return Some(self);
        }
        println!("NOT PROVEN on this machine, which has no network namespaces: {claim}");
        self.keep("left_out", &json!(claim));
        None
    }

    /// Another fact, with its numbers.
    pub(crate) fn observe(&mut self, fact: impl Into<String>) {
        let fact = fact.into();
        println!("observed: {fact}");
        self.observed.push(fact);
    }

    /// Keeps them.
    pub(crate) fn write(self) {
        self.keep("observed", &json!(self.observed));
    }

    #[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
    fn keep(&self, what: &str, value: &Value) {
        let Ok(dir) = std::env::var("TOOLYARD_FLEET_FACTS") else { return };
        let at = Clock::system().now().to_string();
        let line = json!({ "order": self.order, "scenario": self.scenario, what: value, "at": at }).to_string();
        let file = std::fs::File::create_new(PathBuf::from(dir).join(format!("{:03}.json", self.order)));
        let mut file = file.unwrap_or_else(|error| panic!("another scenario has place {}: {error}", self.order));
        file.write_all(line.as_bytes()).expect("the fact is kept");
    }
}
