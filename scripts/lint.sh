#!/usr/bin/env bash
# Formatting, lints, crate edges, generated files, the console's types, lints, unit tests and budgets. Fails on
# any difference.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/console.sh
scripts/npm-install.sh console # scripts/console.sh installs nothing when there is nothing to build
scripts/npm-install.sh console/codegen
npm --prefix console run --silent check
npm --prefix console run --silent generate:check

cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- --deny warnings
cargo xtask edges
cargo xtask generate --check
cargo xtask budgets
