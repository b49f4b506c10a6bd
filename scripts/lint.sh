#!/usr/bin/env bash
# Formatting, lints, crate edges, generated files. Fails on any difference.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- --deny warnings
cargo xtask edges
cargo xtask generate --check
