#!/usr/bin/env bash
# Builds RocksDB's static library once for the version in Cargo.lock, and keeps it in the cache.
#
# Compiling its C++ is the larger half of a cold build (7m47s of two cores, measured), and cargo would repeat it for
# every profile and every `cargo clean`. librocksdb-sys links a library it is shown instead (ROCKSDB_LIB_DIR,
# ROCKSDB_STATIC), whatever the profile.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

use_rocksdb
[ ! -e "$ROCKSDB_LIB_DIR/librocksdb.a" ] || exit 0

say "building RocksDB $(rocksdb_version) (once; about 8 minutes on two cores)"
build=$WINDLASS_CACHE/rocksdb/build
target=$ROCKSDB_LIB_DIR
# The workspace's own feature set decides what is compiled in: -p selects the package as the workspace resolved it.
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$build" \
  cargo build --quiet --locked --release -p librocksdb-sys
library=$(find "$build/release/build" -name librocksdb.a -path '*librocksdb-sys-*' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
[ -n "$library" ] || die "librocksdb-sys was built but left no librocksdb.a under $build"
mkdir -p "$target"
# Renamed into place, so that an interrupted copy is never taken for the library.
cp "$library" "$target/.librocksdb.a.$$"
# Its debug information is 1.5 GB, and every program linked with it would carry half of that.
strip --strip-debug "$target/.librocksdb.a.$$"
mv "$target/.librocksdb.a.$$" "$target/librocksdb.a"
rm -rf "$build"
