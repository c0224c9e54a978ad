#!/usr/bin/env bash
# Format and lints, without running anything. `make check`; the first half of `make test`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

scripts/setup.sh build
use_rocksdb
say "format"
cargo fmt --all --check
say "lints"
cargo clippy --locked --release --workspace --all-targets -- -D warnings
if command -v cargo-deny >/dev/null; then
  say "licences and advisories"
  cargo deny --locked check licenses bans sources
fi
