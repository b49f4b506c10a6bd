# Sourced by the benchmarks: a release Toolyard of its own, an agent that joined it, and their end. Sets bin and dir.

[ -n "${BENCH_NO_BUILD:-}" ] || cargo build --release --quiet --package toolyard --package toolyard-bench
bin=${CARGO_TARGET_DIR:-target}/release
dir=$(mktemp -d)
export TOOLYARD_BOOTSTRAP_API_KEY=ty_bootstrap_0123456789abcdef0123456789abcdef
export TOOLYARD_BOOTSTRAP_ADMIN_PASSWORD=correct-horse-battery
export TOOLYARD_API_KEY=$TOOLYARD_BOOTSTRAP_API_KEY
echo "$TOOLYARD_API_KEY" >"$dir/key"
serve='' agent=''

stop_all() {
  [ -z "$agent" ] || kill -INT "$agent" 2>/dev/null || true
  [ -z "$serve" ] || kill -INT "$serve" 2>/dev/null || true
  wait 2>/dev/null || true
  [ -n "${BENCH_KEEP:-}" ] && echo "kept: $dir" >&2 || rm -rf "$dir"
}
trap stop_all EXIT

# What is measured is how fast it can be, not how fast one key may be.
export TOOLYARD_REQUESTS_PER_SECOND_PER_PRINCIPAL=0 TOOLYARD_REQUESTS_PER_SECOND_PER_ORGANIZATION=0
start_toolyard() { # start_toolyard NAME PORT: its data and NAME.log are in $dir; sets serve
  export TOOLYARD_URL=http://127.0.0.1:$2
  "$bin/toolyard" serve --data-dir "$dir/$1" --set log=warn \
    --listen "127.0.0.1:$2" --agent-listen "127.0.0.1:$(($2 + 1))" >>"$dir/$1.log" 2>&1 &
  serve=$!
  until curl --silent --fail --output /dev/null "$TOOLYARD_URL/readyz"; do
    kill -0 $serve || { cat "$dir/$1.log" >&2; exit 1; }
    sleep 0.1
  done
}

stop_toolyard() {
  kill -INT "$serve" && wait "$serve" || true
  serve=
}

join_agent() { # join_agent TOOLBOX [LISTEN-ADDRESS]: its data and agent.log are in $dir; sets agent
  local token
  token=$("$bin/toolyard" toolboxes enroll "$1" ${2:+--address "$2"} --output json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])')
  TOOLYARD_TOKEN=$token "$bin/toolyard" dtma --data-dir "$dir/agent" --set log=warn ${2:+--listen "$2"} \
    >"$dir/agent.log" 2>&1 &
  agent=$!
  until "$bin/toolyard" toolboxes show "$1" --output json |
    python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["link"]["connected"])'; do
    kill -0 $agent || { cat "$dir/agent.log" >&2; exit 1; }
    sleep 0.2
  done
}
