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

/// Says that the kernel must not write to file systems to find memory for this thread and those it starts
/// (`PR_SET_IO_FLUSHER`, Linux 5.6): for a process that file systems wait for.
///
/// # Errors
/// `EPERM` without CAP_SYS_RESOURCE, `EINVAL` on older kernels.
pub fn act_as_io_flusher() -> io::Result<()> {
    Ok(rustix::process::configure_io_flusher_behavior(true)?)
}
