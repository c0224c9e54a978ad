#!/usr/bin/env bash
# The full forms of the proofs in tests/proofs: each prints one line of figures. `make proofs`.
#
# usage: scripts/proofs.sh [NAME...]     kill power full errors flip store lazy daemon (default: all)
#   PROOF_SEED=N      another seed than the usual one
#   PROOF_SCALE=N     N hundredths of the trials (default 100)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh test
use_rocksdb
say "build"
cargo build --locked --release -p windlass
cargo test --locked --release -p tests --no-run

# prove TARGET FILTER TRIALS: one test, as root, with so many trials.
prove() {
  local target=$1 filter=$2 trials=$(($3 * ${PROOF_SCALE:-100} / 100))
  local runner=()
  [ "$(id -u)" = 0 ] || runner=(sudo -E env "PATH=$PATH")
  say "$filter: $trials trials"
  "${runner[@]}" env WINDLASS_PROOF_TRIALS="$trials" ${PROOF_SEED:+WINDLASS_PROOF_SEED="$PROOF_SEED"} \
    "$(command -v cargo)" test --locked --release -p tests --test "$target" -- --include-ignored --nocapture --test-threads=1 "$filter" \
    | grep -E 'trials,|snapshots, made|FAILED|panicked' || failed=1
}

failed=0
[ $# -gt 0 ] || set -- kill power full errors flip store lazy daemon
for name in "$@"; do
  case $name in
    kill) prove proofs kill::t1_ 10000 ;;
    power) prove proofs power::t2_after 10000; prove proofs power::t2_without 60 ;;
    full) prove proofs full::f5_ 1000 ;;
    errors) prove proofs errors::f6_an_error 1000; prove proofs errors::f6_a_disk 1000 ;;
    flip) prove proofs flip::t4_ 10000 ;;
    lazy) prove proofs lazy_server::f14_ 1000 ;;
    daemon) prove proofs daemon_kill::t9_ 200 ;;
    store) prove it concurrent::a_store_of 1 ;;
    *) die "'$name' is none of kill, power, full, errors, flip, store, lazy, daemon" ;;
  esac
done
exit $failed
