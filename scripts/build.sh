#!/usr/bin/env bash
# Builds the binary into the cache. `make build`, `make install`, `make clean-cache`.
#
# usage: scripts/build.sh [--install PREFIX | --clean]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

if [ "${1:-}" = --clean ]; then
  say "removing $WINDLASS_CACHE"
  rm -rf --one-file-system "$WINDLASS_CACHE"
  exit 0
fi
scripts/setup.sh build
use_rocksdb
cargo build --locked --release -p windlass
if [ "${1:-}" = --install ]; then
  as_root install -D -m 755 "$CARGO_TARGET_DIR/release/windlass" "${2:?a prefix}/bin/windlass"
else
  say "$CARGO_TARGET_DIR/release/windlass"
fi
