# Sourced by the scripts beside it: paths, the build's environment, words, root rights.
#
# Everything that is built lies in one cache outside the checkout, so that a second clone or a second command
# compiles nothing twice:
#   $WINDLASS_CACHE/target                  cargo's target directory
#   $WINDLASS_CACHE/rocksdb/VERSION/        librocksdb.a, built once for each locked version
#   $WINDLASS_CACHE/demo                    the demo's image
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WINDLASS_CACHE=${WINDLASS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/windlass}
export WINDLASS_CACHE
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$WINDLASS_CACHE/target}
# Debian keeps losetup, mkfs.ext4 and runc in the sbin directories; rustup's cargo is in the home directory.
PATH=$HOME/.cargo/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# die WHAT...: says why and stops.
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: runs it with root's rights, through sudo when the caller is somebody else.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo --preserve-env=CARGO_TARGET_DIR,WINDLASS_CACHE,RUST_BACKTRACE env "PATH=$PATH" "$@"
  else
    die "'$*' needs root: run this as root, or install sudo"
  fi
}

# Version of librocksdb-sys that Cargo.lock pins; it names RocksDB's own version after the plus sign.
rocksdb_version() {
  sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;q}' "$top/Cargo.lock"
}

# Points the build at the prebuilt RocksDB. A ROCKSDB_LIB_DIR that is set already and holds the library wins.
use_rocksdb() {
  if [ -z "${ROCKSDB_LIB_DIR:-}" ] || [ ! -e "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
    ROCKSDB_LIB_DIR=$WINDLASS_CACHE/rocksdb/$(rocksdb_version)
  fi
  export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

# libseccomp goes into the program: one copied binary is to be enough on a bare machine. .cargo/config.toml says the same
# for a cargo called by hand; here the library's place is asked for, which differs between architectures.
LIBSECCOMP_LINK_TYPE=static
LIBSECCOMP_LIB_PATH=$(dirname "$(cc -print-file-name=libseccomp.a 2>/dev/null || echo /usr/lib/x86_64-linux-gnu/.)")
export LIBSECCOMP_LINK_TYPE LIBSECCOMP_LIB_PATH
