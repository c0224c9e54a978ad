#!/usr/bin/env bash
# Makes the images of the bench as OCI layouts, without any image registry: Debian by mmdebstrap, each further step in
# a chroot, one layer a step by umoci. `make bench-images`; needs root and Debian's package mirror, and for `node` npm's.
#
# usage: bench/images.sh [NAME...]      python, node, redis, debian-min (default: the first three)
# Layouts go to $BENCH_DATA/images/NAME (default /var/tmp/windlass-bench); one that stands is left alone.
set -euo pipefail
. "$(dirname "$0")/../scripts/lib.sh"
data=${BENCH_DATA:-/var/tmp/windlass-bench}
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=BENCH_DATA,WINDLASS_CACHE env "PATH=$PATH" "$0" "$@"
"$top/scripts/setup.sh" bench
mkdir -p "$data/images"
work=$(mktemp -d --tmpdir="$data" build.XXXXXX)
root=$work/bundle/rootfs

unmount_all() { for at in $(cut -d' ' -f2 /proc/self/mounts | grep "^$work/" | sort -r); do umount -l "$at"; done; }
trap 'unmount_all; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM

# in_root COMMAND...: runs it in the image, with /proc, the name server and the package lists of one session.
in_root() {
  mkdir -p "$work/archives/partial" "$work/lists/partial"
  mount --bind /proc "$root/proc"
  mount --bind "$work/archives" "$root/var/cache/apt/archives"
  mount --bind "$work/lists" "$root/var/lib/apt/lists"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  local status=0
  if [ ! -e "$work/lists/.done" ]; then
    chroot "$root" apt-get -qq update && touch "$work/lists/.done"
  fi
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "$@" >"$work/log" 2>&1 </dev/null || status=$?
  unmount_all
  rm -rf "$root"/tmp/* "$root"/root/.npm "$root"/var/log/apt "$root"/var/cache/debconf/*-old
  : >"$root/etc/resolv.conf"
  [ $status = 0 ] || { tail -n 20 "$work/log" >&2; die "in the image, '$*' ended with $status"; }
}

# layer: what has changed since the last one becomes a layer.
layer() { umoci repack --refresh-bundle --image "$work/image:latest" "$work/bundle"; }

apt() { in_root apt-get -qq install -y --no-install-recommends "$@"; layer; }

# workload LINE...: the script that the bench runs; it prints a line when the program would be of use.
workload() {
  mkdir -p "$root/bench"
  printf '%s\n' '#!/bin/sh' "$@" >"$root/bench/run"
  chmod 755 "$root/bench/run"
  layer
}

begin() {
  rm -rf --one-file-system "$work/image" "$work/bundle"
  umoci init --layout "$work/image"
  umoci new --image "$work/image:latest"
  umoci unpack --image "$work/image:latest" "$work/bundle"
  . /etc/os-release
  mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "${VERSION_CODENAME:-bookworm}" "$root" </dev/null
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  layer
  apt ca-certificates tzdata netbase
}

make_image() {
  case $1 in
    debian-min) apt curl procps; workload 'echo hi' ;;
    python)
      apt python3 python3-distutils
      apt python3-numpy
      apt python3-scipy
      apt python3-pandas python3-pytest python3-requests
      workload "exec python3 -c 'import numpy, pandas; print(\"hi\", flush=True)'"
      ;;
    node)
      apt nodejs npm
      mkdir -p "$root/app"
      in_root sh -c 'cd /app && npm install --ignore-scripts --no-audit --no-fund --loglevel=error express@4 lodash@4 typescript@5.4 webpack@5 eslint@8 react@18 react-dom@18 @babel/core@7'
      printf '%s\n' "const e = require('express'), l = require('lodash'), t = require('typescript'); e(); console.log('hi', l.VERSION, t.version);" >"$root/app/index.js"
      layer
      workload 'cd /app && exec node index.js'
      ;;
    redis)
      apt redis-server
      workload "cd /tmp; redis-server --save '' --port 0 --unixsocket /tmp/r.sock >/tmp/log & P=\$!" \
        'while ! redis-cli -s /tmp/r.sock ping 2>/dev/null | grep -q PONG; do :; done; echo ready; kill $P; wait'
      ;;
    *) die "'$1' is none of python, node, redis, debian-min" ;;
  esac
}

[ $# != 0 ] || set -- python node redis
for name; do
  [ ! -e "$data/images/$name/index.json" ] || continue
  say "making $name"
  begin
  make_image "$name"
  umoci gc --layout "$work/image"
  rm -rf "$data/images/$name"
  mv "$work/image" "$data/images/$name"
done
