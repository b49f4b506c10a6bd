#!/usr/bin/env bash
# Says what is missing on this machine, and how to get it, before a long build finds out.
#
#   scripts/check-tools.sh console # what building the web console needs
#   scripts/check-tools.sh build   # and what compiling needs
#   scripts/check-tools.sh run     # and what running npm and PyPI servers needs
set -euo pipefail

missing=0
need() { # need COMMAND WHAT-FOR HOW-TO-GET-IT
  if ! command -v "$1" >/dev/null 2>&1; then
    echo "missing: $1 ($2). $3" >&2
    missing=1
  fi
}
hint() { # what to install, in the words of the system at hand
  if command -v apt-get >/dev/null 2>&1; then echo "Get it: apt-get install $1"
  elif command -v dnf >/dev/null 2>&1; then echo "Get it: dnf install $2"
  elif command -v brew >/dev/null 2>&1; then echo "Get it: brew install $3"
  else echo "Install it with your system's package manager."; fi
}

need node "builds the web console" "Get Node.js 20.19 or newer: https://nodejs.org/en/download"
need npm "builds the web console" "It comes with Node.js: https://nodejs.org/en/download"
if command -v node >/dev/null 2>&1; then
  # Vite needs 20.19, or 22.12 in its line; 21 never got what it needs.
  node -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a >= 23 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' || {
    echo "too old: Node.js $(node --version); the web console needs 20.19, 22.12 or newer." \
      "Get it: https://nodejs.org/en/download" >&2
    missing=1
  }
fi
[ "${1:-build}" != console ] || exit $missing

need cargo "compiles Toolyard" "Get Rust 1.90 or newer: https://rustup.rs"
need cc "compiles the TLS and SQLite libraries" "$(hint build-essential gcc gcc)"
if command -v rustc >/dev/null 2>&1; then
  version=$(rustc --version | sed -E 's/rustc 1\.([0-9]+).*/\1/')
  if [ "$version" -lt 90 ]; then
    echo "too old: $(rustc --version); Toolyard needs 1.90. Get it: rustup update stable" >&2
    missing=1
  fi
fi
# The TLS library brings prebuilt assembly for these; elsewhere it compiles with cmake.
case "$(uname -m)" in
  x86_64 | aarch64 | arm64) ;;
  *) need cmake "compiles the TLS library on $(uname -m)" "$(hint cmake cmake cmake)" ;;
esac

if [ "${1:-build}" = run ]; then
  need python3 "runs PyPI servers" "$(hint python3 python3 python)"
  if command -v python3 >/dev/null 2>&1 && ! command -v uv >/dev/null 2>&1 && ! python3 -m pip --version >/dev/null 2>&1; then
    echo "missing: pip or uv (installs PyPI servers). $(hint 'python3-pip' python3-pip uv)" >&2
    missing=1
  fi
fi
exit $missing
