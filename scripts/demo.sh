#!/usr/bin/env bash
# From a checkout to a running container, on real parts: builds Windlass, makes an image of Debian with python3,
# pushes it to a registry on loopback, and runs it. `make demo`. Nothing is left but the build cache.
#
# usage: scripts/demo.sh [COMMAND...]     (default: python3 saying hello; exit status is the command's)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh demo
use_rocksdb
say "building windlass"
cargo build --locked --release -p windlass
if [ "$(id -u)" != 0 ]; then exec sudo --preserve-env=CARGO_TARGET_DIR,WINDLASS_CACHE env "PATH=$PATH" "$0" "$@"; fi

work=$(mktemp -d --tmpdir windlass-demo.XXXXXX)
registry=
clean() {
  trap '' INT TERM
  # The engine that the first command started is known by its --root, which is ours alone.
  local proc
  for proc in $(grep -lsz -- "$work/root" /proc/[0-9]*/cmdline || true); do
    proc=${proc#/proc/}
    [ "${proc%/cmdline}" = $$ ] || kill "${proc%/cmdline}" 2>/dev/null || true
  done
  if [ -n "$registry" ]; then kill "$registry" 2>/dev/null || true; fi
  wait 2>/dev/null || true
  local mounted
  for mounted in $(cut -d' ' -f2 /proc/self/mounts | grep "^$work/" | sort -r); do umount -l "$mounted" || true; done
  rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# An OCI layout of Debian and python3, kept for the next time. Only Debian's own sources: others may not fit a minimal system.
image=$WINDLASS_CACHE/demo/debian-python
if [ ! -e "$image/index.json" ]; then
  . /etc/os-release
  suite=${VERSION_CODENAME:-bookworm}
  sources=()
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$file" ]; then sources=("$file"); break; fi
  done
  say "making an image of Debian $suite with python3"
  mmdebstrap --quiet --variant=minbase --include=python3 --aptopt='APT::Install-Recommends "false"' "$suite" "$work/rootfs" "${sources[@]}" </dev/null
  umoci init --layout "$work/image"
  umoci new --image "$work/image:latest"
  umoci insert --image "$work/image:latest" "$work/rootfs" / >/dev/null
  umoci config --image "$work/image:latest" --config.cmd python3 --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  mkdir -p "${image%/*}"
  rm -rf "$image"
  mv "$work/image" "$image"
  rm -rf --one-file-system "$work/rootfs"
fi

say "starting a registry and pushing the image to it"
cat >"$work/registry.yml" <<Y
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
Y
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 </dev/null &
registry=$!
address=
for _ in $(seq 100); do
  address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/registry.log")
  [ -z "$address" ] || break
  kill -0 "$registry" 2>/dev/null || { cat "$work/registry.log" >&2; die "docker-registry did not start"; }
  sleep 0.1
done
[ -n "$address" ] || die "docker-registry did not say where it listens: $(tail -n 3 "$work/registry.log")"
skopeo copy --quiet --insecure-policy --dest-tls-verify=false "oci:$image:latest" "docker://$address/debian-python:latest"

if [ $# = 0 ]; then set -- python3 -c 'print("hello from windlass")'; fi
say "windlass run --rm $address/debian-python:latest $*"
status=0
"$CARGO_TARGET_DIR/release/windlass" --root "$work/root" --state "$work/state" run --rm "$address/debian-python:latest" "$@" || status=$?
exit $status
