#!/usr/bin/env bash
# Hurts a fleet in every way and writes what was observed to docs/reports/fleet.md. Only a run in which every scenario
# passed writes it.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
TOOLYARD_TEST_DOCKER_HOST=$(scripts/docker-test.sh start)
export TOOLYARD_TEST_DOCKER_HOST
[ -n "${TOOLYARD_BINARY:-}" ] || cargo build --package toolyard
TOOLYARD_FLEET_FACTS=$(mktemp -d)
export TOOLYARD_FLEET_FACTS
trap 'rm -rf "$TOOLYARD_FLEET_FACTS"' EXIT

cargo nextest run --package toolyard-fleet-tests --test it
cargo run --quiet --package toolyard-fleet-tests --bin toolyard-fleet-report -- "$TOOLYARD_FLEET_FACTS" docs/reports/fleet.md
cat docs/reports/fleet.md
