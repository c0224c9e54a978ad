#!/usr/bin/env bash
# containerd's own suites for snapshotters and content stores (Debian's golang-github-containerd-containerd-dev) against a
# windlass daemon with a fresh root. Part of `make test`; the binary must have been built.
#
# usage: scripts/suites.sh [SNAPSHOTTER...]     (default: overlayfs native)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"
[ $# -gt 0 ] || set -- overlayfs native
windlass=${WINDLASS_BIN:-$CARGO_TARGET_DIR/release/windlass}
sources=${GOCODE:-/usr/share/gocode}
[ -x "$windlass" ] || die "$windlass is not there: scripts/build.sh makes it"
[ -d "$sources/src/github.com/containerd/containerd/snapshots/testsuite" ] \
  || die "containerd's suites are not in $sources: scripts/setup.sh test installs them"

work=$(mktemp -d)
daemon=
finish() {
  if [ -n "$daemon" ]; then
    as_root kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  as_root rm -rf "$work"
}
trap finish EXIT

say "containerd's suites: build"
# Debian keeps Go's libraries as a GOPATH; nothing is fetched.
(cd tests/suites && env -u GOFLAGS GOTOOLCHAIN=local GO111MODULE=off GOPATH="$sources" \
  GOCACHE="$WINDLASS_CACHE/go" go test -c -o "$work/suites" .)

as_root "$windlass" --root "$work/root" --state "$work/state" daemon >"$work/log" 2>&1 &
daemon=$!
socket=$work/state/windlass.sock
for _ in $(seq 100); do
  as_root test -S "$socket" && break
  kill -0 "$daemon" 2>/dev/null || break
  sleep 0.1
done
as_root test -S "$socket" || die "the daemon did not start: $(cat "$work/log")"

# suite WORDS PATTERN CASES...: runs the tests of the pattern; all must pass, and so many cases must have run.
suite() {
  local words=$1 pattern=$2 cases=$3 passed skipped
  if ! as_root env SOCKET="$socket" SNAPSHOTTER="${4:-}" TMPDIR="$work" \
    "$work/suites" -test.root -test.v -test.timeout 10m -test.run "$pattern" >"$work/out" 2>&1; then
    cat "$work/out" "$work/log" >&2
    die "containerd's suite failed: $words"
  fi
  passed=$(grep -c '^    --- PASS' "$work/out" || true)
  skipped=$(sed -n 's/^    --- SKIP: [^/]*\/\([^ ]*\).*/\1/p' "$work/out" | xargs)
  say "containerd's suite, $words: $passed passed${skipped:+, skipped by the suite: $skipped}"
  [ "$passed" -ge "$cases" ] || die "only $passed of $cases cases ran: $words"
}

for snapshotter; do
  # Of 21: the suite of 1.6 skips Rename, whatever the snapshotter.
  suite "snapshotter $snapshotter" '^TestSnapshotter$' 20 "$snapshotter"
done
suite "content" '^TestContent$' 12
suite "content of several namespaces" '^TestContentShared$' 2
