//! A disk of our own under a real file system, so that every write that reaches it is known.
//!
//! A file served over FUSE from memory ([`Blocks`]), a loop device on top of it, ext4 on top of that. The loop device sends
//! each write of ext4's as one of ours, in the order in which it makes them, and a flush as an `fsync`. What was written
//! before a flush that was answered survives a power cut; what came after may survive or not, each write for itself.
//!
//! The content can be swapped while nothing is mounted, which makes a trial cost a mount and an unmount, and no copy.

mod blocks;
mod serve;

use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::Advice;
use rustix::mount::{MountFlags, UnmountFlags};
use tests::finish;

use crate::world::MOUNTED;
pub(crate) use blocks::Blocks;
pub(crate) use serve::{Event, Refuse};
use serve::{Served, State};

/// A block device in memory, and where its file system is mounted.
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    device: PathBuf,
    mounted: Option<PathBuf>,
    directory: tempfile::TempDir,
    session: Option<fuser::BackgroundSession>,
}

impl Disk {
    /// A disk with this content, not mounted.
    pub(crate) fn new(blocks: Blocks) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-disk.").tempdir()?;
        let (served, mounted) = (directory.path().join("served"), directory.path().join(MOUNTED));
        std::fs::create_dir(&served)?;
        std::fs::create_dir(&mounted)?;
        let state = Arc::new(Mutex::new(State::new(blocks)));
        let session = fuser::spawn_mount(Served(state.clone()), &served, &fuser::Config::default())
            .context("a FUSE file system cannot be mounted here")?;
        let mut disk =
            Self { state, device: PathBuf::new(), mounted: None, directory, session: Some(session) };
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(served.join(serve::NAME));
        let device = finish(&mut losetup, Duration::from_secs(10))?.success().context("no loop device")?;
        disk.device = device.trim().into();
        Ok(disk)
    }

    /// A disk of `bytes` with an empty ext4. `options` are `mkfs.ext4`'s.
    pub(crate) fn format(bytes: usize, options: &[&str]) -> Result<Self> {
        let disk = Self::new(Blocks::new(bytes))?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4"]);
        mkfs.args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]).args(options).arg(&disk.device);
        finish(&mut mkfs, Duration::from_secs(60))?.success()?;
        disk.forget_cache()?;
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("serving does not panic")
    }

    /// What is on the disk now.
    pub(crate) fn blocks(&self) -> Blocks {
        self.state().blocks.clone()
    }

    /// Puts other content on the disk, which is not mounted, and ends every refusal.
    pub(crate) fn load(&self, blocks: Blocks) -> Result<()> {
        assert!(self.mounted.is_none(), "a mounted disk does not change behind the file system's back");
        // Before, so that nothing old is written over the new; after, so that nothing old is read in its place.
        self.forget_cache()?;
        let mut state = self.state();
        state.blocks = blocks;
        state.refuse = Refuse::Nothing;
        drop(state);
        self.forget_cache()
    }

    /// The kernel may have kept what it read from the device.
    fn forget_cache(&self) -> Result<()> {
        let device = std::fs::File::open(&self.device)?;
        rustix::fs::fsync(&device)?;
        Ok(rustix::fs::fadvise(&device, 0, None, Advice::DontNeed)?)
    }

    /// Mounts it.
    pub(crate) fn mount(&mut self, options: &str) -> Result<PathBuf> {
        let target = self.directory.path().join(MOUNTED);
        let options = CString::new(options)?;
        rustix::mount::mount(&self.device, &target, "ext4", MountFlags::NOATIME, options.as_c_str())
            .context("ext4 cannot be mounted")?;
        self.mounted = Some(target.clone());
        Ok(target)
    }

    /// Unmounts it, if it is mounted.
    pub(crate) fn unmount(&mut self) -> Result<()> {
        let Some(target) = self.mounted.take() else { return Ok(()) };
        let mut left = 200;
        loop {
            match rustix::mount::unmount(&target, UnmountFlags::empty()) {
                // Threads of a store that was just closed may still hold a file for a moment.
                Err(rustix::io::Errno::BUSY) if left > 0 => {
                    left -= 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result.with_context(|| format!("unmount {}", target.display())),
            }
        }
    }

    /// From now on everything that is written is noted.
    pub(crate) fn record(&self) {
        self.state().log = Some(Vec::new());
    }

    /// Notes a moment between two writes.
    pub(crate) fn mark(&self) {
        if let Some(log) = &mut self.state().log {
            log.push(Event::Mark);
        }
    }

    /// Ends the recording.
    pub(crate) fn recorded(&self) -> Vec<Event> {
        self.state().log.take().unwrap_or_default()
    }

    /// Refuses writes from now on; answers how many came since the last call.
    pub(crate) fn refuse(&self, refuse: Refuse) -> u64 {
        let mut state = self.state();
        state.refuse = refuse;
        std::mem::take(&mut state.writes)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.state().refuse = Refuse::Nothing;
        if self.unmount().is_err() {
            let target = self.directory.path().join(MOUNTED);
            let _ = rustix::mount::unmount(&target, UnmountFlags::DETACH);
        }
        let mut losetup = Command::new("losetup");
        let _ = finish(losetup.arg("--detach").arg(&self.device), Duration::from_secs(10));
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}
