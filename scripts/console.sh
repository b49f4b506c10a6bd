#!/usr/bin/env bash
# Builds the web console into console/dist, from where cargo takes it into the program. Does nothing when
# console/dist is newer than everything it is made of, so that cargo has nothing to compile again either.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/check-tools.sh console
built=console/dist/.built
if [ -e "$built" ]; then
  changed=$(find console/src console/public console/scripts console/index.html console/package-lock.json \
    console/package.json console/*.ts -newer "$built" -print -quit)
  [ -n "$changed" ] || exit 0
fi
scripts/npm-install.sh console
npm --prefix console run --silent build
touch "$built"
