#!/usr/bin/env bash
# Builds stargz-snapshotter's daemon from Debian's library (golang-github-containerd-stargz-snapshotter-dev) and prints
# where it lies: in the build cache, made once.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
sources=${GOCODE:-/usr/share/gocode}
library=src/github.com/containerd/stargz-snapshotter
daemon=$WINDLASS_CACHE/stargz
[ -d "$sources/$library" ] || die "stargz-snapshotter's library is not in $sources: scripts/setup.sh test installs it"
if [ ! -x "$daemon" ] || [ "$top/tests/suites/stargz/main.go" -nt "$daemon" ]; then
  work=$(mktemp -d)
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  mkdir -p "$work/$library" "$work/src/stargz"
  cp -r "$sources/$library/." "$work/$library"
  # What needs Kubernetes' libraries, which Debian has in other versions, and none of which is used here.
  rm -rf "$work/$library/service/keychain/cri" "$work/$library/service/keychain/kubeconfig" "$work/$library/service/plugin" "$work/$library/service/resolver/cri.go"
  cp "$top/tests/suites/stargz/main.go" "$work/src/stargz/"
  (cd "$work/src/stargz" && env -u GOFLAGS GOTOOLCHAIN=local GO111MODULE=off GOPATH="$work:$sources" GOCACHE="$WINDLASS_CACHE/go" go build -o "$daemon" .) >&2
fi
echo "$daemon"
