#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS (default 60); what it finds stays in tests/fuzz/artifacts. `make fuzz`.
#
# usage: scripts/fuzz.sh [TARGET...]     (default: all)
set -euo pipefail
. "$(dirname "$0")/lib.sh"

"$top/scripts/setup.sh" build
use_rocksdb
rustup run nightly rustc --version >/dev/null 2>&1 || die "fuzzing needs a nightly compiler: rustup toolchain install nightly"
command -v cargo-fuzz >/dev/null || { say "installing cargo-fuzz"; cargo install --quiet --locked cargo-fuzz; }
cd "$top/tests/fuzz"
# A target directory of its own: sanitizers change every object.
export CARGO_TARGET_DIR=$WINDLASS_CACHE/fuzz
if [ $# = 0 ]; then
  # shellcheck disable=SC2046 # one word a target
  set -- $(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
fi
for target; do
  say "$target for ${FUZZ_SECONDS:-60} s"
  cargo +nightly fuzz run --fuzz-dir . "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -max_len=65536 -rss_limit_mb=2048 -print_final_stats=1
done
