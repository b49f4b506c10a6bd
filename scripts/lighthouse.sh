#!/usr/bin/env bash
# Lighthouse on every page of the console in both themes, against the production build in the real program; writes
# docs/reports/lighthouse.md and fails below 0.95 for performance, accessibility or best practices.
#
#   scripts/lighthouse.sh                    # everything, about half an hour on two cores
#   scripts/lighthouse.sh --last-failed      # again what failed, on a machine that was busy; writes the whole report
#   scripts/lighthouse.sh -g "/servers,"     # one page; writes no report
#
# The program is TOOLYARD_BINARY, or the release binary, which is built with its console when absent.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
[ -n "${TOOLYARD_E2E_NO_SETUP:-}" ] || scripts/test-setup.sh
[ -n "${TOOLYARD_BINARY:-}" ] || make --no-print-directory build
export TOOLYARD_BINARY=${TOOLYARD_BINARY:-$PWD/target/release/toolyard}

scripts/npm-install.sh console/e2e
scripts/npm-install.sh console/e2e/lighthouse
cd console/e2e
[ "${1:-}" = --last-failed ] || rm -rf lighthouse/results
[ $# -gt 0 ] && [ "${1:-}" != --last-failed ] || export TOOLYARD_E2E_REPORTS=$PWD/../../docs/reports

setsid node_modules/.bin/playwright test --config lighthouse.config.ts "$@" &
group=$!
trap 'kill -TERM -- -$group 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
wait $group
