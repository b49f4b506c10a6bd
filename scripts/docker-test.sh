#!/usr/bin/env bash
# Starts, or stops, a Docker Engine of the tests' own, with the base images in it. `start` prints its DOCKER_HOST.
#
#   scripts/docker-test.sh start   # idempotent
#   scripts/docker-test.sh stop
#
# Its data, socket and the images' tarballs live under ${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$UID}: the
# images are built once for each version of deploy/images/build.sh. A Docker Engine of the machine's own is
# neither used nor touched.
set -euo pipefail
cd "$(dirname "$0")/.."

test_dir=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
dir=$test_dir/docker
socket=$dir/docker.sock
export DOCKER_HOST=unix://$socket

running() { [ -S "$socket" ] && docker version >/dev/null 2>&1; }

load_images() {
  local cache
  cache=$test_dir/images/$(sha256sum deploy/images/build.sh | cut -c1-16)
  mkdir -p "$cache"
  for name in node python; do
    if docker image inspect "toolyard/base-$name:1" >/dev/null 2>&1 && [ -f "$cache/$name.tar" ]; then continue; fi
    if [ ! -f "$cache/$name.tar" ]; then
      deploy/images/build.sh "$name" >"$cache/$name.log" 2>&1 || { tail -30 "$cache/$name.log" >&2; exit 1; }
      docker save -o "$cache/$name.tar.new" "toolyard/base-$name:1"
      mv "$cache/$name.tar.new" "$cache/$name.tar"
    else
      docker load -q -i "$cache/$name.tar" >/dev/null
    fi
  done
}

case "${1:-}" in
  start)
    if ! command -v dockerd >/dev/null || ! command -v docker-init >/dev/null; then
      echo "docker-test: dockerd not found; on Debian: apt-get install docker.io tini iptables" >&2
      exit 1
    fi
    mkdir -p "$dir"
    if ! running; then
      rm -f "$dir/pid"
      # Not a child of ours: it stays when this script ends.
      setsid dockerd --data-root "$dir/data" --exec-root "$dir/exec" -H "unix://$socket" --pidfile "$dir/pid" \
        --bip 172.31.240.1/24 >"$dir/log" 2>&1 </dev/null &
      for _ in $(seq 300); do
        running && break
        sleep 0.1
      done
      running || { echo "docker-test: the engine did not start" >&2; tail -20 "$dir/log" >&2; exit 1; }
    fi
    load_images
    echo "$DOCKER_HOST"
    ;;
  stop)
    if [ -f "$dir/pid" ]; then
      pid=$(cat "$dir/pid")
      kill "$pid" 2>/dev/null || true
      for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
      done
    fi
    ;;
  *)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
