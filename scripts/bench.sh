#!/usr/bin/env bash
# Windlass beside containerd and podman; the table goes to bench/results. `make bench`.
#
# usage: scripts/bench.sh [pull|start|store] [OPTION...]      options of bench-compare, e.g. pull --images python --runs 9
# BENCH_DATA (default /var/tmp/windlass-bench) holds the images (bench/images.sh) and the engines' data.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh bench
use_rocksdb
cargo build --locked --release -p windlass -p bench-compare
data=${BENCH_DATA:-/var/tmp/windlass-bench}
bench/images.sh python node redis debian-min
mkdir -p bench/results
what=pull
case ${1:-} in pull | start | store) what=$1 && shift ;; esac
as_root "$CARGO_TARGET_DIR/release/bench-compare" "$what" --layouts "$data/images" --data "$data/engines" --out "bench/results/$(date +%F)-$what.md" "$@"
