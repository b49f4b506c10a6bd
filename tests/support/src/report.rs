//! One row of a suite's report: what was tried, what should happen, what happened.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

/// A row under way. `got` keeps it, also when the test fails afterwards: a report is only written when all passed.
#[must_use]
#[derive(Debug)]
pub struct Row {
    area: String,
    tried: String,
    expected: String,
}

impl Row {
    /// `area` is the heading that the row stands under; `tried` says the attack or the fault in a few words.
    pub fn of(area: impl Into<String>, tried: impl Into<String>) -> Self {
        Self { area: area.into(), tried: tried.into(), expected: String::new() }
    }

    /// What should happen.
    pub fn expected(mut self, expected: impl ToString) -> Self {
        self.expected = expected.to_string();
        self
    }

    /// What happened, as observed; numbers with their units.
    #[expect(clippy::needless_pass_by_value, reason = "a status, a text or a time alike")]
    #[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
    pub fn got(self, got: impl ToString) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let got = got.to_string();
        println!("{}: {}: expected {}, got {got}", self.area, self.tried, self.expected);
        let Ok(dir) = std::env::var("TOOLYARD_SUITE_ROWS") else { return };
        let row = json!({ "area": self.area, "tried": self.tried, "expected": self.expected, "got": got });
        let name = format!("{}-{:04}.json", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut file = std::fs::File::create_new(PathBuf::from(dir).join(name)).expect("a file of its own");
        file.write_all(row.to_string().as_bytes()).expect("the row is kept");
    }
}

/// Whether this is `make security` or `make faults`, whose loops may be longer: `short` normally, `long` there.
#[expect(clippy::disallowed_methods, reason = "the test's own environment, not a setting")]
pub fn long<T>(short: T, long: T) -> T {
    if std::env::var_os("TOOLYARD_SUITE_LONG").is_some() { long } else { short }
}
