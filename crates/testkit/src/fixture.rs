//! The fixture server: one npm package, `toolyard-fixture`, whose first argument says how it behaves.
//!
//! | argument | behaviour |
//! | --- | --- |
//! | none, `ok` | legacy era; tools `echo`, `sleep`, `block`, `hang`, `first_method`, `env`, `crash`, `big`, `fork`, `eat_memory`, `many_processes`, `stderr_flood`, `babble_at`, `read_file`, `write_file` |
//! | `modern` | the same in the modern era |
//! | `noisy` | as `ok`, with lines on standard output that are not protocol |
//! | `garbage` | writes only what is not protocol |
//! | `indiscreet` | writes only its secret `API_KEY`, to standard output |
//! | `long-last-words` | writes 60 KiB and a last line without its end to standard error and exits |
//! | `never-answer` | reads and says nothing |
//! | `exit-at-once CODE` | writes a line to standard error and exits |
//! | `slow-start MS` | as `ok`, after a while |
//! | `stubborn` | as `ok`, but ignores the end of its input and SIGTERM |
//! | `deaf-after MS` | as `ok`, until it stops answering |
//! | `initialize-only` | as `ok`, but exits when anything comes before `initialize` |
//! | `wedged-by-discover` | as `ok`, but answers nothing when anything came before `initialize` |
//! | `strict` | as `ok`, but exits when a line is empty, as it does when one is no JSON |
//! | `lenient` | as `ok`, but answers a line that is no JSON with an error and counts it: tool `broken_lines` |
//! | `fragile` | as `ok`, but exits when a call and its cancellation come together |

use crate::npm_registry::NpmPackage;

/// The package's name.
pub const NAME: &str = "toolyard-fixture";
/// The package's only version.
pub const VERSION: &str = "1.0.0";

/// The package.
#[must_use]
pub fn package() -> NpmPackage {
    let manifest = serde_json::json!({ "name": NAME, "version": VERSION, "bin": { NAME: "server.js" } });
    NpmPackage {
        name: NAME.into(),
        version: VERSION.into(),
        files: vec![
            ("package.json".into(), manifest.to_string().into_bytes()),
            ("server.js".into(), include_bytes!("fixture.js").to_vec()),
        ],
    }
}
