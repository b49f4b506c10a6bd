#!/usr/bin/env bash
# Installs what the tests need and is not there: Postgres, promtool, browsers, a Docker Engine and a registry for
# it (Debian packages), cargo-nextest,
# the end-to-end suite's own packages, and the MCP clients of other people that the tests use, below
# $TOOLYARD_TEST_DIR/clients.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${TOOLYARD_TEST_DIR:-/tmp/toolyard-test-$(id -u)}
mkdir -p "$dir"

packages=()
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || packages+=(postgresql)
command -v promtool >/dev/null || packages+=(prometheus)
command -v unshare >/dev/null || packages+=(util-linux)
command -v chromium >/dev/null || packages+=(chromium)
command -v firefox-esr >/dev/null || packages+=(firefox-esr)
command -v WebKitWebDriver >/dev/null || packages+=(webkit2gtk-driver)
command -v Xvfb >/dev/null || packages+=(xvfb)
{ command -v dockerd && command -v docker-init && command -v iptables; } >/dev/null || packages+=(docker.io tini iptables)
command -v docker-registry >/dev/null || packages+=(docker-registry)
command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
command -v haproxy >/dev/null || packages+=(haproxy)
[ -x /bin/busybox ] || packages+=(busybox-static)
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "test-setup: installing ${packages[*]}"
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } >"$dir/apt.log" 2>&1 ||
      { tail -20 "$dir/apt.log" >&2; exit 1; }
  else
    echo "test-setup: missing: ${packages[*]}; install them (on Debian: apt-get install ${packages[*]})" >&2
    exit 1
  fi
fi
scripts/npm-install.sh console/e2e
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest

# The clients, once for each set of versions.
typescript="@modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0"
pythons="1.12.4 1.30.0 2.3.0"
stamp="2 $typescript $pythons"
if [ "$(cat "$dir/clients/stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "test-setup: installing MCP clients"
  rm -rf "$dir/clients"
  mkdir -p "$dir/clients/typescript"
  (
    cd "$dir/clients/typescript"
    npm init --yes >/dev/null 2>&1
    # shellcheck disable=SC2086
    npm install --ignore-scripts --no-audit --no-fund --silent $typescript
  )
  for version in $pythons; do
    python3 -m venv "$dir/clients/python-$version"
    # 1.12.4 imports a private name that pydantic 2.12 took away.
    "$dir/clients/python-$version/bin/pip" install --quiet "mcp==$version" \
      "$([ "$version" = 1.12.4 ] && echo 'pydantic<2.12' || echo pydantic)"
  done
  echo "$stamp" >"$dir/clients/stamp"
fi
