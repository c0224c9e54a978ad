#!/usr/bin/env bash
# The validations that the Open Container Initiative wrote for OCI runtimes (runtime-tools), run against several runtimes
# side by side: what fails with ours and not with the first one named is a failure of this script.
#
# usage: tests/suites/runtime/run.sh [REFERENCE [OURS...]]
#   REFERENCE, OURS   programs with runc's command line; default: runc, and the one built in (`oci-runtime-under-test`)
#   RUNTIME_TOOLS     a checkout of github.com/opencontainers/runtime-tools; without it one is cloned into the cache
#   ONLY              a pattern of the validations to run, such as 'linux_cgroups_*'
#
# Needs root, go and git. One line a validation: its name, then for each runtime how many checks held and how many did not.
set -euo pipefail
. "$(dirname "$0")/../../../scripts/lib.sh"

COMMIT=5e63903
TIMEOUT_S=60

[ "$(id -u)" = 0 ] || die "the validations make containers: run this as root"
command -v go >/dev/null || die "the validations are written in Go: install golang-go"

cache=$WINDLASS_CACHE/runtime-tools
source=${RUNTIME_TOOLS:-$cache/source}
if [ ! -e "$source/go.mod" ]; then
  say "cloning runtime-tools"
  git clone -q https://github.com/opencontainers/runtime-tools "$source"
  git -C "$source" checkout -q "$COMMIT"
fi

built=$cache/built
mkdir -p "$built"
if [ ! -e "$built/done" ]; then
  say "building the validations"
  (cd "$source" && CGO_ENABLED=0 GOFLAGS=-mod=vendor go build -o "$built/runtimetest" ./cmd/runtimetest)
  for directory in "$source"/validation/*/; do
    name=$(basename "$directory")
    [ "$name" = util ] || (cd "$source" && GOFLAGS=-mod=vendor go build -o "$built/$name" "./validation/$name")
  done
  cp "$source"/rootfs-*.tar.gz "$built"
  touch "$built/done"
fi

runtimes=("$@")
[ ${#runtimes[@]} -gt 0 ] || runtimes=("$(command -v runc)")
[ ${#runtimes[@]} -gt 1 ] || runtimes+=("$CARGO_TARGET_DIR/release/oci-runtime-under-test")

# results NAME RUNTIME: the validation's lines that did not hold; how many held goes to the file named by HELD.
results() {
  local output
  output=$(cd "$built" && RUNTIME=$2 timeout -s KILL "$TIMEOUT_S" "./$1" 2>&1) || output+=$'\nnot ok - ended with an error'
  grep -c '^ *ok ' <<<"$output" >"$work/held" || true
  # Numbers and paths differ between two runs of one validation.
  grep '^ *not ok ' <<<"$output" | sed -E 's/^ *not ok [0-9]+//; s/[0-9a-f]{8}-[0-9a-f-]{27}/ID/g; s#/tmp/[^ /]+#DIR#g' || true
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
worse=0
for path in "$built"/*; do
  name=$(basename "$path")
  case $name in runtimetest | done | *.tar.gz) continue ;; esac
  # shellcheck disable=SC2254 # a pattern on purpose
  case $name in ${ONLY:-*}) ;; *) continue ;; esac
  line=$name
  for at in "${!runtimes[@]}"; do
    results "$name" "${runtimes[$at]}" | sort >"$work/failed-$at"
    line+=$(printf '  %s+ %s-' "$(cat "$work/held")" "$(wc -l <"$work/failed-$at")")
  done
  echo "$line"
  for at in "${!runtimes[@]}"; do
    [ "$at" -gt 0 ] || continue
    if [ "$(wc -l <"$work/failed-$at")" -gt "$(wc -l <"$work/failed-0")" ]; then
      worse=1
      echo "  more fails with ${runtimes[$at]}:"
      comm -13 "$work/failed-0" "$work/failed-$at" | sed 's/^/    /'
    fi
  done
done
exit $worse
