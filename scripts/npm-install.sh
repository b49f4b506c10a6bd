#!/usr/bin/env bash
# Installs a Node.js package's dependencies as its lock file says, when they are not there already.
#
#   scripts/npm-install.sh console
#
# Not `npm ci`: it refuses a lock file that was written where a registry mirror does not carry the binaries of
# every other platform (npm leaves such optional packages out of the lock, and then misses them). `npm install
# --no-save` takes the locked versions and leaves the lock alone; that the lock speaks of the same dependencies
# as package.json is checked here.
set -euo pipefail
cd "$(dirname "$0")/../$1"

# npm writes the file in node_modules last; a lock file that changed since is newer.
[ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ] || exit 0
node -e '
  const [wanted, lock] = ["./package.json", "./package-lock.json"].map((file) => require(process.cwd() + "/" + file));
  const locked = lock.packages[""];
  for (const kind of ["dependencies", "devDependencies"])
    if (JSON.stringify(wanted[kind] ?? {}) !== JSON.stringify(locked[kind] ?? {})) {
      console.error(`${process.argv[1]}/package-lock.json does not fit its package.json (${kind}); run npm install there`);
      process.exit(1);
    }' "$1"
echo "installing the Node.js packages of $1"
npm install --no-save --no-audit --no-fund --loglevel=error
touch node_modules/.package-lock.json
