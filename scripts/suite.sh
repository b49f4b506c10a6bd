#!/usr/bin/env bash
# Runs a suite with its long loops and writes what it observed to docs/reports/SUITE.md; only a run in which every
# test passed writes it.
#
#   scripts/suite.sh security   # attacks, each of which must fail
#   scripts/suite.sh faults     # faults that must be got over
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:?usage: scripts/suite.sh security|faults}
export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
scripts/test-setup.sh
TOOLYARD_TEST_DOCKER_HOST=$(scripts/docker-test.sh start)
TOOLYARD_TEST_POSTGRES_URL=$(scripts/postgres-test.sh start)
export TOOLYARD_TEST_DOCKER_HOST TOOLYARD_TEST_POSTGRES_URL
[ -n "${TOOLYARD_BINARY:-}" ] || cargo build --package toolyard
TOOLYARD_SUITE_ROWS=$(mktemp -d)
export TOOLYARD_SUITE_ROWS TOOLYARD_SUITE_LONG=1
trap 'rm -rf "$TOOLYARD_SUITE_ROWS"' EXIT

cargo nextest run --package "toolyard-$suite-tests"
cargo run --quiet --package toolyard-test-support --bin toolyard-suite-report -- \
  "$TOOLYARD_SUITE_ROWS" "$suite" "docs/reports/$suite.md"
