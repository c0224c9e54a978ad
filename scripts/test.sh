#!/usr/bin/env bash
# Everything that must hold before a change lands: format, lints, tests. `make test`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh test
use_rocksdb
# Mounts, users and devices need root: the tests themselves run through sudo when the caller is somebody else.
if [ "$(id -u)" != 0 ]; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -E env PATH=$PATH"
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
fi
scripts/check.sh
say "build"
# All of it: features are those of the tests below, and nothing is compiled twice.
cargo build --locked --release --workspace
say "tests"
cargo test --locked --release --workspace "$@"
# Words of the caller choose tests; the suites are none of these.
[ $# -gt 0 ] || scripts/suites.sh
