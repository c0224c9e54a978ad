//! Files that exist in memory only.

use std::fs::File;
use std::io;

use rustix::fs::MemfdFlags;

/// A new, empty file in memory, gone with its last descriptor; close-on-exec. `name` is for `/proc` only.
///
/// # Errors
/// `EMFILE`, `ENOMEM`.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}
