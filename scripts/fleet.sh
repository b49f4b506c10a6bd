#!/usr/bin/env bash
# Hurts a fleet in every way and writes what was observed to docs/reports/fleet.md. Only a run in which every scenario
# passed writes it.
#
# Hosts are network namespaces, which need root. TOOLYARD_FLEET_NO_NETNS=1 is for machines that have none: the scenarios
# that need hosts are left out, what was not proven is said at the end, and docs/reports/fleet.md stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
TOOLYARD_TEST_DOCKER_HOST=$(scripts/docker-test.sh start)
TOOLYARD_TEST_POSTGRES_URL=$(scripts/postgres-test.sh start)
export TOOLYARD_TEST_DOCKER_HOST TOOLYARD_TEST_POSTGRES_URL
[ -n "${TOOLYARD_BINARY:-}" ] || cargo build --package toolyard
TOOLYARD_FLEET_FACTS=$(mktemp -d)
export TOOLYARD_FLEET_FACTS
trap 'rm -rf "$TOOLYARD_FLEET_FACTS"' EXIT

cargo nextest run --package toolyard-fleet-tests --test it
cargo run --quiet --package toolyard-fleet-tests --bin toolyard-fleet-report -- "$TOOLYARD_FLEET_FACTS" docs/reports/fleet.md
