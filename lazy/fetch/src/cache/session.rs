//! Whose turn it is with the cache, and whether what its journals say can be believed.
//!
//! `begin -> (kill -9 | power cut | end)`. A process that was killed left its bytes and records in the page cache: another
//! of the same boot believes the journals. After a clean end (all written back) so does one of another boot. Otherwise
//! each chunk is compared with its digest when it is first read, now and by every later process until a clean end in
//! which all that was doubtful had been believed before.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use storage_sys::durable;

use crate::FetchError;

/// What is in the file FORMAT.
const FORMAT: &str = "windlass lazy cache 1";
/// How long to wait for a predecessor that is being killed.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The right to use the cache; it ends with this value, however the process ends.
pub(super) struct Session {
    _lock: File,
    note: Note,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Which boot of the machine (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    /// The journals were believed at the start.
    proved: bool,
    /// All was written back at the end.
    clean: bool,
}

impl Session {
    /// Takes the lock and reads how the last process left the cache.
    pub(super) fn begin(directory: &Path) -> Result<Self, FetchError> {
        let failed = |name: &str, doing, source| FetchError::Cache {
            path: directory.join(name),
            doing,
            source: Arc::new(source),
        };
        let lock = take_lock(directory)?;
        let format = directory.join("FORMAT");
        match std::fs::read_to_string(&format) {
            Ok(found) if found.trim() == FORMAT => {}
            Ok(found) => {
                let found = found.trim().chars().take(80).collect();
                return Err(FetchError::CacheFormat { path: directory.to_owned(), found, wanted: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(directory, "FORMAT", FORMAT.as_bytes()).map_err(|e| failed("FORMAT", "written", e))?;
            }
            Err(error) => return Err(failed("FORMAT", "read", error)),
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let last = std::fs::read(directory.join("session")).ok();
        let last = last.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let proved = match last {
            Some(last) => last.clean || (last.proved && last.boot == boot && !boot.is_empty()),
            // A new cache, or one whose note is lost or damaged: then nothing vouches for what is there.
            None => !directory.join("packs").exists(),
        };
        let note = Note { boot, proved, clean: false };
        let session = Self { _lock: lock, note };
        session.save(directory, &session.note).map_err(|error| failed("session", "written", error))?;
        Ok(session)
    }

    /// Whether the journals are believed.
    pub(super) fn is_proved(&self) -> bool {
        self.note.proved
    }

    /// Writes everything back, then says so.
    pub(super) fn end(&self, directory: &Path) -> io::Result<()> {
        durable::sync_file_system(durable::open_directory(directory)?)?;
        self.save(directory, &Note { clean: self.note.proved, ..self.note.clone() })
    }

    fn save(&self, directory: &Path, note: &Note) -> io::Result<()> {
        write(directory, "session", &serde_json::to_vec(note)?)
    }
}

fn take_lock(directory: &Path) -> Result<File, FetchError> {
    let path = directory.join("lock");
    let failed = |source| FetchError::Cache { path: path.clone(), doing: "locked", source: Arc::new(source) };
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if began.elapsed() < WAIT_MAX => {
                // Whoever was killed may take a moment to be gone: its threads end one by one.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(FetchError::CacheBusy { path: directory.to_owned() });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Replaces a file: written, synced, renamed, and the rename synced.
fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&temporary, directory.join(name))?;
    durable::sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_believed_after_kill_9_and_a_clean_end_and_not_after_a_power_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let begin = || {
            let session = Session::begin(path).unwrap();
            std::fs::create_dir_all(path.join("packs")).unwrap();
            session
        };
        assert!(begin().is_proved(), "a new cache has nothing to doubt");
        assert!(begin().is_proved(), "killed, same boot");
        let reboot = || {
            let text = std::fs::read_to_string(path.join("session")).unwrap();
            let mut note: Note = serde_json::from_str(&text).unwrap();
            note.boot = "another".to_owned();
            std::fs::write(path.join("session"), serde_json::to_vec(&note).unwrap()).unwrap();
        };
        let session = begin();
        session.end(path).unwrap();
        drop(session);
        reboot();
        assert!(begin().is_proved(), "another boot after a clean end");
        reboot();
        assert!(!begin().is_proved(), "another boot without one");
        assert!(!begin().is_proved(), "the doubt stays with the next process of that boot");
        let session = begin();
        session.end(path).unwrap();
        drop(session);
        assert!(!begin().is_proved(), "and is not lifted by a clean end");
        std::fs::remove_file(path.join("session")).unwrap();
        assert!(!begin().is_proved(), "a note that is lost vouches for nothing");
        std::fs::write(path.join("session"), "{").unwrap();
        assert!(!begin().is_proved(), "nor does one that is damaged");
    }
}
