#!/usr/bin/env bash
# Proves that a Toolyard deployed on a target works: alive, ready, and on the target it is meant to be on.
#
#   scripts/smoke.sh                      # starts ./target/release/toolyard itself, on whatever target this is
#   scripts/smoke.sh systemd URL          # checks one that runs already: bare, systemd, container, cluster
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-}
url=${2:-}
if [ -z "$url" ]; then
  binary=${TOOLYARD_BINARY:-target/release/toolyard}
  [ -x "$binary" ] || { echo "smoke: $binary is not there; make build" >&2; exit 1; }
  dir=$(mktemp -d)
  port=${SMOKE_PORT:-18480}
  url=http://127.0.0.1:$port
  "$binary" serve --data-dir "$dir" --listen "127.0.0.1:$port" --agent-listen "127.0.0.1:$((port + 1))" >"$dir/log" 2>&1 &
  pid=$!
  trap 'kill -TERM $pid 2>/dev/null; wait $pid 2>/dev/null || true; rm -rf "$dir"' EXIT
fi

fetch() { curl --silent --show-error --fail --max-time 5 "$url$1"; }
for _ in $(seq 1 100); do
  fetch /readyz >/dev/null 2>&1 && break
  sleep 0.1
done
fetch /healthz >/dev/null && echo "ok: alive"
fetch /readyz >/dev/null && echo "ok: ready"
seen=$(fetch /api/v1/version | sed -E 's/.*"deployment_target": *"([a-z]+)".*/\1/')
if [ -n "$target" ] && [ "$seen" != "$target" ]; then
  echo "smoke: deployment target is $seen, expected $target" >&2
  exit 1
fi
echo "ok: deployment target $seen"
code=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5 "$url/api/v1/servers")
[ "$code" = 401 ] || { echo "smoke: /api/v1/servers without a key answered $code, expected 401" >&2; exit 1; }
echo "ok: refuses requests without a key"
