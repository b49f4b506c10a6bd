#!/usr/bin/env bash
# Builds the base images that a Docker toolbox runs npm and PyPI packages in, without needing an image registry:
# Debian's packages (mmdebstrap) with git, which servers of repositories call, Node.js and npm from npm, uv from PyPI.
#
#   deploy/images/build.sh node      # toolyard/base-node:1
#   deploy/images/build.sh python    # toolyard/base-python:1
#   deploy/images/build.sh           # both
#
# Needs root, mmdebstrap, npm, python3 with pip, and docker (or CONTAINER_CLI=podman) with its DOCKER_HOST.
# CA_BUNDLE=FILE puts another certificate bundle into the images; DEBIAN_SUITE, NODE_VERSION, NPM_VERSION and
# UV_VERSION choose versions.
set -euo pipefail

suite=${DEBIAN_SUITE:-bookworm}
node_version=${NODE_VERSION:-22.22.0}
npm_version=${NPM_VERSION:-11.6.2}
uv_version=${UV_VERSION:-}
cli=${CONTAINER_CLI:-docker}
uid=10001

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

# A small Debian with the packages named.
rootfs() {
  local packages
  packages=$(IFS=,; echo "ca-certificates,git${1:+,$1}")
  mkdir "$work/root"
  mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$work/root"
  rm -rf "$work/root"/var/lib/apt/lists/* "$work/root"/var/cache/apt/*
  if [ -n "${CA_BUNDLE:-}" ]; then cp -L "$CA_BUNDLE" "$work/root/etc/ssl/certs/ca-certificates.crt"; fi
  chroot "$work/root" git --version
  chroot "$work/root" useradd --uid "$uid" --create-home toolyard
}

import() {
  tar -C "$work/root" --numeric-owner -c . | "$cli" import \
    -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c "USER $uid:$uid" -c 'WORKDIR /home/toolyard' \
    -c "LABEL org.opencontainers.image.title=toolyard-base-$1" - "toolyard/base-$1:1"
  rm -rf --one-file-system "$work/root"
}

arch() {
  case "$(uname -m)" in
    x86_64) echo x64 ;;
    aarch64) echo arm64 ;;
    *) echo "build: no Node.js for $(uname -m)" >&2; exit 1 ;;
  esac
}

node() {
  rootfs ""
  mkdir "$work/npm"
  (
    cd "$work/npm"
    npm pack --silent "node-linux-$(arch)@$node_version" "npm@$npm_version" >/dev/null
    mkdir node npm
    tar -C node -xzf node-linux-*.tgz --strip-components=1
    tar -C npm -xzf npm-*.tgz --strip-components=1
  )
  install -D -m 755 "$work/npm/node/bin/node" "$work/root/usr/local/bin/node"
  mkdir -p "$work/root/usr/local/lib/node_modules"
  cp -r --no-preserve=ownership "$work/npm/npm" "$work/root/usr/local/lib/node_modules/npm"
  chmod 755 "$work/root/usr/local/lib/node_modules/npm/bin/npm-cli.js"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/root/usr/local/bin/npm"
  # Node.js 22 asks the C++ library for this and minbase has it by apt's own needs; better to know now.
  chroot "$work/root" /usr/local/bin/node --version
  import node
}

python() {
  rootfs python3
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work/wheels" "uv${uv_version:+==$uv_version}"
  python3 -m zipfile -e "$work"/wheels/uv-*.whl "$work/uv"
  install -m 755 "$work"/uv/uv-*.data/scripts/uv "$work/root/usr/local/bin/uv"
  chroot "$work/root" /usr/local/bin/uv --version
  import python
}

case "${1:-all}" in
  node) node ;;
  python) python ;;
  all) node; python ;;
  *) echo "usage: $0 [node|python]" >&2; exit 2 ;;
esac
