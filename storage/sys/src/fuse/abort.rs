//! Breaking a connection from outside (`fusectl`): the only thing that frees a process whose request nobody will answer.

use std::io;
use std::path::Path;

use crate::mount::{self, Attributes};

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// All its users got an error.
    Done,
    /// It had ended already.
    Gone,
}

/// Aborts the connection of the file system with device number `minor` (`stat` of anything in it gives 0:`minor`).
/// Every request that waits fails with `ECONNABORTED`, every later one with `ENOTCONN`. `scratch` is an empty directory
/// that is mounted on for the moment.
///
/// # Errors
/// Those of mounting `fusectl` and of writing to it.
pub fn abort_connection(minor: u32, scratch: &Path) -> io::Result<Abort> {
    let control = mount::file_system("fusectl", "none", &[], Attributes::default())
        .and_then(|control| mount::attach(control, scratch));
    control.map_err(io::Error::other)?;
    let outcome = match std::fs::write(scratch.join(minor.to_string()).join("abort"), b"1") {
        Ok(()) => Ok(Abort::Done),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Abort::Gone),
        Err(error) => Err(error),
    };
    mount::detach(scratch).map_err(io::Error::other)?;
    outcome
}
