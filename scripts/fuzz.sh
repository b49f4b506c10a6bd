#!/usr/bin/env bash
# Fuzzes the parsers of what others send: scripts/fuzz.sh [SECONDS per target, 60 when absent].
# What it found is in fuzz/artifacts; `cargo fuzz run TARGET FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
# The sanitizers' flags need a nightly compiler, or a stable one that is told that we know.
export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
  mkdir -p "fuzz/corpus/$target"
  cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" --sanitizer none -- \
    -max_total_time="${1:-60}" -max_len=8192 -print_final_stats=1
done
