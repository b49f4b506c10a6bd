#!/usr/bin/env bash
# The console's end-to-end tests on Chromium, Firefox and WebKitGTK, against a real Toolyard with real MCP servers.
#
#   scripts/test-e2e.sh                        # everything; writes docs/reports/browsers.md and accessibility.md
#   scripts/test-e2e.sh --screenshots          # and docs/reports/screenshots
#   scripts/test-e2e.sh --project firefox -g "rolls back"   # what Playwright takes; writes no report
#
# The program under test is TOOLYARD_BINARY; without it, the console and the program are built here, as the other
# tests build them. Two workers, each with a Toolyard of its own; TOOLYARD_E2E_WORKERS changes that.
set -euo pipefail
cd "$(dirname "$0")/.."

export TOOLYARD_TEST_DIR=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
[ -n "${TOOLYARD_E2E_NO_SETUP:-}" ] || scripts/test-setup.sh

scripts/npm-install.sh console
scripts/npm-install.sh console/e2e
if [ -z "${TOOLYARD_BINARY:-}" ]; then
  (cd console && npm run build)
  cargo build --quiet --package toolyard
fi
export TOOLYARD_BINARY=${TOOLYARD_BINARY:-$PWD/target/debug/toolyard}

cd console/e2e
npm run --silent check
if grep -rnE 'test(\.describe)?\.(skip|fixme|only|fail)\b' tests; then
  echo "test-e2e: the tests above are skipped or expected to fail; a skipped test is a failed one" >&2
  exit 1
fi

if [ "${1:-}" = --screenshots ]; then
  shift
  export TOOLYARD_E2E_SCREENSHOTS=$PWD/../../docs/reports/screenshots
  mkdir -p "$TOOLYARD_E2E_SCREENSHOTS"
fi
# Only a full run may speak for the suite.
[ $# -gt 0 ] || export TOOLYARD_E2E_REPORTS=$PWD/../../docs/reports

# A process group of its own: browsers, screens and Toolyards end with it, however this script ends.
setsid node_modules/.bin/playwright test "$@" &
group=$!
trap 'kill -TERM -- -$group 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
wait $group
if [ -n "${TOOLYARD_E2E_SCREENSHOTS:-}" ] && command -v pngquant >/dev/null; then
  pngquant --quality 60-95 --strip --force --ext .png "$TOOLYARD_E2E_SCREENSHOTS"/*.png
fi
