//! A file that takes room so that there is some when the disk is full.
//!
//! Deleting needs a little room (a line in the log), and a disk that is full to the last block would never get emptier. The
//! file is given up by a deletion that found the disk full, and taken again when a collection or an opening finds room.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use storage_sys::durable::{free_bytes, preallocate};

/// Size of the file, in bytes: the longest log, twice, since opening the metadata anew writes it out as tables.
pub(super) const RESERVE_BYTES: u64 = 16 << 20;

/// A disk that has less than this many times the reserve is not asked for it.
const ROOM_FACTOR: u64 = 4;

/// The reserve of one store.
pub(super) struct Reserve(pub(super) PathBuf);

impl Reserve {
    /// Takes the room, unless it is taken or the disk is small. It is a help, not a promise: failures are logged.
    pub(super) fn take(&self) {
        let parent = self.0.parent().unwrap_or(&self.0);
        let free = free_bytes(parent).unwrap_or(0);
        if self.0.exists() || free < RESERVE_BYTES * ROOM_FACTOR {
            return;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0);
        if let Err(error) = file.and_then(|file| preallocate(&file, RESERVE_BYTES)) {
            tracing::debug!(path = %self.0.display(), %error, "no room is kept for a full disk");
            self.give_up();
        }
    }

    /// Gives the room up; answers whether there was any.
    pub(super) fn give_up(&self) -> bool {
        match std::fs::remove_file(&self.0) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %self.0.display(), %error, "the room kept for a full disk stays");
                }
                false
            }
        }
    }
}
