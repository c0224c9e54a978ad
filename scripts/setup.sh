#!/usr/bin/env bash
# Makes a fresh Debian ready: packages that are missing, a Rust toolchain, RocksDB. Quick when all is there.
#
# usage: scripts/setup.sh [build|demo|test|bench]     (each includes the ones before it; default: build)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"
purpose=${1:-build}

# name-of-a-command-or-file:package; what exists is not installed again.
build_needs=(c++:g++ pkg-config:pkg-config curl:curl /etc/ssl/certs/ca-certificates.crt:ca-certificates /usr/include/seccomp.h:libseccomp-dev)
demo_needs=(mmdebstrap:mmdebstrap umoci:umoci skopeo:skopeo docker-registry:docker-registry runc:runc)
test_needs=(podman:podman /usr/bin/kill:procps ctr:containerd getfattr:attr openssl:openssl htpasswd:apache2-utils busybox:busybox-static mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs script:bsdutils /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables ip:iproute2 go:golang-go /usr/share/gocode/src/github.com/containerd/containerd:golang-github-containerd-containerd-dev /usr/share/gocode/src/github.com/containerd/stargz-snapshotter:golang-github-containerd-stargz-snapshotter-dev ctr-remote:stargz-snapshotter strace:strace)
bench_needs=(crun:crun pigz:pigz)

needs=("${build_needs[@]}")
case $purpose in
  build) ;;
  demo) needs+=("${demo_needs[@]}") ;;
  test) needs+=("${demo_needs[@]}" "${test_needs[@]}") ;;
  bench) needs+=("${demo_needs[@]}" "${test_needs[@]}" "${bench_needs[@]}") ;;
  *) die "'$purpose' is none of build, demo, test, bench" ;;
esac

# RocksDB's bindings are generated with libclang: its library, and the headers that belong to it.
clang_is_here() {
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null
}
clang_packages() {
  if apt-cache show libclang1-14 >/dev/null 2>&1; then echo libclang1-14 libclang-common-14-dev; else echo libclang-dev; fi
}

missing() {
  local need probe package
  for need in "${needs[@]}"; do
    probe=${need%:*} package=${need##*:}
    case $probe in
      /*) [ -e "$probe" ] || echo "$package" ;;
      *) command -v "$probe" >/dev/null || echo "$package" ;;
    esac
  done
}

# Debian's packages of containerd and docker-registry start a daemon when they are installed; the commands here start
# their own. A policy that stands already is left alone.
without_daemons() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e $policy ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
  as_root chmod 755 $policy
  local status=0
  "$@" || status=$?
  as_root rm -f $policy
  return $status
}

install_packages() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install -y --no-install-recommends "$@" >/dev/null </dev/null
}

packages=$(missing)
if [ -n "$packages" ] || ! clang_is_here; then
  command -v apt-get >/dev/null || die "this sets up Debian; elsewhere install by hand: ${packages//$'\n'/ } and libclang with its headers"
  say "bringing the package lists up to date"
  as_root apt-get -o DPkg::Lock::Timeout=600 -qq update </dev/null || die "apt-get update failed: the package lists cannot be read"
  clang_is_here || packages="$packages $(clang_packages)"
  # shellcheck disable=SC2086 # one word a package
  set -- $packages
  say "installing $*"
  without_daemons install_packages "$@" || die "apt-get could not install: $*"
fi

channel=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
if ! command -v cargo >/dev/null; then
  say "installing Rust by rustup, into $HOME/.cargo"
  curl --proto '=https' --tlsv1.2 -sSf --connect-timeout 20 https://sh.rustup.rs | sh -s -- -y -q --profile minimal --default-toolchain none --no-modify-path \
    || die "there is no cargo, and rustup could not be fetched: install rustup from https://rustup.rs (Debian 12's own rustc 1.63 is too old; this needs $channel), then run this again"
fi
if ! cargo --version >/dev/null 2>&1; then
  say "installing Rust $channel"
  rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy \
    || die "cargo does not start and rustup could not install Rust $channel: run 'rustup toolchain install $channel' where the network allows it"
fi

scripts/rocksdb.sh
