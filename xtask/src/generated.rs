//! Files generated from the code and committed; a difference fails CI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What `toolyard generate` calls it, and where it belongs.
const FILES: &[(&str, &str)] = &[
    ("env-example", ".env.example"),
    ("configuration", "docs/reference/configuration.md"),
    ("settings-schema", "docs/reference/settings.schema.json"),
    ("problems", "docs/reference/problems.md"),
    ("cli", "docs/reference/cli.md"),
    ("openapi", "openapi/public.json"),
];

/// Writes every generated file.
pub(crate) fn write() -> Result<()> {
    for (what, file) in FILES {
        let text = generate(what)?;
        std::fs::write(root().join(file), text).with_context(|| format!("writing {file}"))?;
    }
    println!("generated: {} files written", FILES.len());
    Ok(())
}

/// Fails when a committed file is not what the code generates.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (what, file) in FILES {
        let there = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        if there != generate(what)? {
            stale.push(*file);
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask generate` and commit", stale.join(", "));
    }
    println!("generated: {} files are up to date", FILES.len());
    Ok(())
}

fn generate(what: &str) -> Result<String> {
    let output = Command::new("cargo")
        .args(["run", "--quiet", "-p", "toolyard", "--", "generate", what])
        .current_dir(root())
        .output()
        .with_context(|| format!("running toolyard generate {what}"))?;
    if !output.status.success() {
        bail!("toolyard generate {what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("toolyard generate {what} is not text"))
}

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
