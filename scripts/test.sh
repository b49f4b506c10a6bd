#!/usr/bin/env bash
# Installs what the tests need, starts their Postgres, and runs everything: lints, then unit, integration and
# end-to-end tests in one cargo profile, then the console in three browsers. A skipped test is a failed one.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
scripts/check-tools.sh run
scripts/test-setup.sh

TOOLYARD_TEST_POSTGRES_URL=$(scripts/postgres-test.sh start)
export TOOLYARD_TEST_POSTGRES_URL
TOOLYARD_TEST_DOCKER_HOST=$(scripts/docker-test.sh start)
export TOOLYARD_TEST_DOCKER_HOST
trap 'scripts/postgres-test.sh stop || true; scripts/docker-test.sh stop || true' EXIT

if git grep --untracked -nE '#\[ignore|\b(test|it|describe)\.(skip|fixme|only|todo)\b' -- '*.rs' '*.ts' '*.tsx'; then
  echo "test: the tests above are skipped; a skipped test is a failed one" >&2
  exit 1
fi

# Builds the console too, before cargo does the program with the console in it.
scripts/lint.sh
cargo nextest run --workspace --profile ci "$@"

# Against the program that the tests before used.
target=${CARGO_TARGET_DIR:-target}
TOOLYARD_E2E_NO_SETUP=1 TOOLYARD_BINARY=$(realpath "$target/debug/toolyard") scripts/test-e2e.sh
