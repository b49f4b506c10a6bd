//! What a scenario observed, for the report: `make fleet` gathers the files into `docs/reports/fleet.md`.

use std::path::PathBuf;

use serde_json::json;
use toolyard_types::Clock;

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

    /// Another fact, with its numbers.
    pub(crate) fn observe(&mut self, fact: impl Into<String>) {
        let fact = fact.into();
        println!("observed: {fact}");
        self.observed.push(fact);
    }

    /// Keeps them.
    #[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
    pub(crate) fn write(self) {
        let Ok(dir) = std::env::var("TOOLYARD_FLEET_FACTS") else { return };
        let at = Clock::system().now().to_string();
        let line =
            json!({ "order": self.order, "scenario": self.scenario, "observed": self.observed, "at": at }).to_string();
        std::fs::write(PathBuf::from(dir).join(format!("{:03}.json", self.order)), line).expect("the fact is kept");
    }
}
