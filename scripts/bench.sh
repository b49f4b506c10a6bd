#!/usr/bin/env bash
# Measures the gateway against a direct connection to the same upstream, in one run, and writes
# docs/reports/gateway-bench.md. Ratios are what counts: absolute numbers depend on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet --package toolyard --package toolyard-bench
dir=$(mktemp -d)
port=${BENCH_PORT:-18580}
export TOOLYARD_URL=http://127.0.0.1:$port TOOLYARD_API_KEY=ty_bootstrap_0123456789abcdef0123456789abcdef
TOOLYARD_BOOTSTRAP_API_KEY=$TOOLYARD_API_KEY ./target/release/toolyard serve --data-dir "$dir" --set log=warn \
  --listen "127.0.0.1:$port" --agent-listen "127.0.0.1:$((port + 1))" >"$dir/log" 2>&1 &
serve=$!
./target/release/toolyard-bench echo --listen "127.0.0.1:$((port + 2))" >"$dir/echo.log" 2>&1 &
echo_server=$!
trap 'kill -INT $serve $echo_server 2>/dev/null; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
for _ in $(seq 1 100); do
  curl --silent --fail --max-time 1 "$TOOLYARD_URL/readyz" >/dev/null && break
  sleep 0.1
done
./target/release/toolyard deploy --remote "http://127.0.0.1:$((port + 2))/mcp" --name echo --wait --output json >/dev/null
./target/release/toolyard-bench load --direct "http://127.0.0.1:$((port + 2))/mcp" \
  --gateway "$TOOLYARD_URL/mcp/default/servers/echo" --key "$TOOLYARD_API_KEY" --gateway-pid "$serve" \
  --clients 1,16,64 --json "$dir/result.json" --report docs/reports/gateway-bench.md "$@"
cat docs/reports/gateway-bench.md
