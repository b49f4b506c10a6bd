#!/usr/bin/env bash
# Installs a Node.js package's dependencies exactly as its lock file says, when they are not there already.
#
#   scripts/npm-ci.sh console
set -euo pipefail
cd "$(dirname "$0")/../$1"

# npm writes this file last; a lock file that changed since is newer.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "npm ci in $1"
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
fi
