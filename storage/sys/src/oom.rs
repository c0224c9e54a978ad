//! Being told when the kernel kills for want of memory inside a cgroup.
//!
//! Not here: how often it has (`memory.oom_control`, `memory.events`): those are files.
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::inotify;

/// Ears on one cgroup's memory.
#[derive(Debug)]
pub struct OomWatch {
    events: File,
    /// In v1 the kernel's registration ends with it.
    _control: Option<OwnedFd>,
}

impl OomWatch {
    /// Listens at a cgroup v1 directory of the memory controller.
    ///
    /// # Errors
    /// Those of the files, `NotFound` when the cgroup is gone.
    pub fn v1(cgroup: &Path) -> io::Result<Self> {
        let events = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let control = File::open(cgroup.join("memory.oom_control"))?;
        let line = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
        fs::write(cgroup.join("cgroup.event_control"), line)?;
        Ok(Self { events: File::from(events), _control: Some(control.into()) })
    }

    /// Listens at a cgroup v2 directory.
    ///
    /// # Errors
    /// Those of the files, `NotFound` when the cgroup is gone.
    pub fn v2(cgroup: &Path) -> io::Result<Self> {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&events, cgroup.join("memory.events"), flags)?;
        Ok(Self { events: File::from(events), _control: None })
    }

    /// Waits until something happened: a kill, or the end of the cgroup. Which one, its files say.
    ///
    /// # Errors
    /// Those of reading.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut event = [0; 512];
        loop {
            match self.events.read(&mut event) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
