//! This program, so that nobody can write to it: what an OCI runtime must be run from.
//!
//! A container's first process is, for a moment, the runtime itself inside the container; whoever is root in there can
//! open its `/proc/<pid>/exe` and, once it is no longer executed, write to the program on the host (CVE-2019-5736). Run
//! from a read-only view of the file, mounted nowhere, there is nothing that could be opened for writing.
//!
//! States: unsealed --[`program`], exec--> sealed. There is no way back.
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags};

use crate::mount::{Attributes, Depth, bind};

const PROGRAM: &str = "/proc/self/exe";

/// Whether this process's program cannot be written to through `/proc`.
///
/// # Errors
/// Those of opening it.
pub fn is_sealed() -> io::Result<bool> {
    let program = File::open(PROGRAM)?;
    if rustix::fs::fstatvfs(&program)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only a file in memory knows seals.
    Ok(rustix::fs::fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// A descriptor of this program to execute (as `/proc/self/fd/N`), which cannot be written to: a read-only view, or,
/// where there is none (the file was replaced by a newer one, the kernel refuses), a sealed copy in memory.
///
/// # Errors
/// Those of copying.
pub fn program() -> io::Result<OwnedFd> {
    let attributes = Attributes { read_only: true, ..Attributes::default() };
    let path = fs::read_link(PROGRAM)?;
    if is_same(&path)
        && let Ok(view) = bind(&path, Depth::One, attributes)
    {
        return view.as_fd().try_clone_to_owned();
    }
    let copy = rustix::fs::memfd_create("windlass", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    io::copy(&mut File::open(PROGRAM)?, &mut File::from(copy.try_clone()?))?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}

/// Whether `path` is still the file that is being executed.
fn is_same(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(path), identity(Path::new(PROGRAM))), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vuln_r1_the_program_cannot_be_opened_for_writing_through_its_descriptor() {
        // Without the right to make mounts it is the copy that is looked at.
        let program = program().unwrap();
        let path = crate::process::descriptor_path(&program);
        let error = File::options().write(true).open(path).unwrap_err();
        // EROFS for a view, EPERM or ETXTBSY for a copy.
        assert!(matches!(error.raw_os_error(), Some(30 | 1 | 26)), "{error}");
    }
}
