//! What the suites `tests/security` and `tests/faults` share: the built program as a person or a script runs it, on
//! either database, as root or as a plain user, with packages of the test's own; and the rows of their reports.
//!
//! ```no_run
//! # use toolyard_test_support::{Engine, Row, Toolyard};
//! let toolyard = Toolyard::on(Engine::Sqlite).setting("private_remotes=false").start();
//! let answer = toolyard.request("GET", "/api/v1/servers").key("ty_wrong").send();
//! Row::of("sign-in", "a key that nobody made").expected("401").got(answer.status);
//! assert_eq!(answer.status, 401);
//! ```

mod http;
mod process;
mod report;
mod toolyard;

pub use http::{Answer, Request, raw};
pub use process::{alive, children_of, pause, processes_with, signal, test_variable, wait_until};
pub use report::{Row, long};
pub use toolyard::{ADMIN, Builder, Engine, KEY, PASSWORD, Toolyard, User, each_engine, free_port};
