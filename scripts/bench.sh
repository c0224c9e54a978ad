#!/usr/bin/env bash
# Cold pull and run beside containerd and podman; the table goes to bench/results. `make bench`.
#
# usage: scripts/bench.sh [OPTION...]      options of bench-compare, e.g. --images python --networks cloud,wan --runs 9
# BENCH_DATA (default /var/tmp/windlass-bench) holds the images (bench/images.sh) and the engines' data.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh bench
use_rocksdb
cargo build --locked --release -p windlass -p bench-compare
data=${BENCH_DATA:-/var/tmp/windlass-bench}
bench/images.sh
mkdir -p bench/results
as_root "$CARGO_TARGET_DIR/release/bench-compare" --layouts "$data/images" --data "$data/engines" --out "bench/results/$(date +%F)-compare.md" "$@"
