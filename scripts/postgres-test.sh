#!/usr/bin/env bash
# Starts, or stops, a throw-away Postgres for the tests. `start` prints its admin URL.
#
#   scripts/postgres-test.sh start   # idempotent
#   scripts/postgres-test.sh stop
#
# The data lives under ${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$UID}/postgres, so that it survives between
# runs and two checkouts of one user share it.
set -euo pipefail

dir=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}/postgres
port=${TOOLYARD_TEST_POSTGRES_PORT:-25432}

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$bin" ] || bin=$(dirname "$(command -v pg_ctl 2>/dev/null || echo /nonexistent/pg_ctl)")
if [ ! -x "$bin/pg_ctl" ]; then
  echo "postgres-test: pg_ctl not found; on Debian: apt-get install postgresql" >&2
  exit 1
fi

# Postgres refuses to run as root.
as_server() { if [ "$(id -u)" = 0 ]; then su postgres -s /bin/bash -c "$1"; else bash -c "$1"; fi; }

case "${1:-}" in
  start)
    mkdir -p "$dir"
    chmod 755 "$(dirname "$dir")"
    if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; fi
    if [ ! -f "$dir/data/PG_VERSION" ]; then
      as_server "$bin/initdb -D $dir/data -A trust -U toolyard -N -E UTF8 --locale=C.UTF-8" >"$dir.initdb.log" 2>&1
    fi
    if ! as_server "$bin/pg_ctl -D $dir/data status" >/dev/null 2>&1; then
      as_server "$bin/pg_ctl -D $dir/data -w -l $dir/log -o '-p $port -k $dir -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c listen_addresses=127.0.0.1' start" >/dev/null
    fi
    echo "postgres://toolyard@127.0.0.1:$port/postgres"
    ;;
  stop)
    as_server "$bin/pg_ctl -D $dir/data -m fast stop" >/dev/null
    ;;
  *)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
