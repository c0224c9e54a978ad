//! Kernel calls about processes: process handles, reaping, sessions, mount namespaces, inherited descriptors.
//!
//! Every call here acts on the calling process or on a child it names; nothing keeps state between calls.
//!
//! Not here: starting programs (`std::process`), the mounts made inside a namespace (`mount`).
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

/// Highest signal number of Linux (`SIGRTMAX`).
pub const SIGNAL_MAX: i32 = 64;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildExit {
    /// It called `exit` with this code, 0..=255.
    Exited(i32),
    /// This signal ended it, 1..=64.
    Signaled(i32),
}

/// A handle to one process: it never means another process that later gets the same number.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens process `pid`. It becomes readable (see [`poll`]) when the process ends.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process (or it has been reaped), `EINVAL` when `pid` is 0 or too large.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends signal number `signal`.
    ///
    /// # Errors
    /// `EINVAL` when it is not 1..=[`SIGNAL_MAX`]; `ESRCH` when the process has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, signal_number(signal)?)?)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn signal_number(signal: i32) -> io::Result<Signal> {
    if let Some(named) = Signal::from_named_raw(signal) {
        return Ok(named);
    }
    if !(1..=SIGNAL_MAX).contains(&signal) {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: the requirement is a number that the kernel knows as a signal and that libc does not reserve for the
    // calling process. It is 1..=64, checked above, and the value is only ever sent to another process by
    // `pidfd_send_signal`, where libc's reservations of 32 and 33 in *this* process do not apply.
    Ok(unsafe { Signal::from_raw_unchecked(signal) })
}

/// Takes the status of one child that has ended, if there is one; never waits.
///
/// Any child counts, also one that became a child by [`become_subreaper`]. Do not mix with `std::process::Child`
/// values still to be waited for: their status could be taken here.
///
/// # Errors
/// Those of `waitpid`; having no child at all is `None`, not an error.
pub fn reap_any() -> io::Result<Option<(u32, ChildExit)>> {
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(found)) => found,
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let exit = status
            .exit_status()
            .map(ChildExit::Exited)
            .or_else(|| status.terminating_signal().map(ChildExit::Signaled));
        if let Some(exit) = exit {
            return Ok(Some((pid.as_raw_nonzero().get().unsigned_abs(), exit)));
        }
    }
}

/// Makes this process the parent of every descendant whose own parent ends.
///
/// # Errors
/// None on the kernels we support (3.4 and later).
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Starts a session of its own: no controlling terminal, no signal from the old one.
///
/// # Errors
/// `EPERM` when this process leads its process group.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Gives the calling thread a mount namespace of its own: mounts made from here on are invisible outside and vanish
/// with the last process inside; what the outside mounts or unmounts still arrives (propagation "slave").
///
/// Call it while the process has one thread: the others would keep the old namespace.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn own_mount_namespace() -> io::Result<()> {
    // SAFETY: the only danger of unshare is a descriptor table no longer shared between threads (CLONE_FILES);
    // CLONE_NEWNS changes the namespace and the root/cwd record of this thread alone and leaves descriptors shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", slave)?)
}

/// Marks every open descriptor above standard error close-on-exec, so that no program started later inherits one that
/// a careless parent left open (CVE-2024-21626 began so). Returns how many were not marked before.
///
/// # Errors
/// Those of reading `/proc/self/fd`.
pub fn close_on_exec_all() -> io::Result<usize> {
    let mut changed = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if number <= 2 {
            continue;
        }
        // SAFETY: the borrow ends inside this iteration. `number` was just listed as open; should another thread have
        // closed it meanwhile, fcntl answers EBADF, which is ignored: the flag of a descriptor is the only thing set,
        // never its file, and setting it on a reused number is what every descriptor of this process has anyway.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = rustix::io::fcntl_getfd(fd)
            && !flags.contains(FdFlags::CLOEXEC)
            && rustix::io::fcntl_setfd(fd, flags | FdFlags::CLOEXEC).is_ok()
        {
            changed += 1;
        }
    }
    Ok(changed)
}

/// Sets the file mode creation mask and returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(Mode::from_raw_mode(mask)).as_raw_mode()
}

/// Effective user id of this process.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Name of this thread as `ps` shows it, cut to the kernel's 15 bytes.
///
/// # Errors
/// `EINVAL` when it holds a NUL.
pub fn set_name(name: &str) -> io::Result<()> {
    let end = (0..=name.len().min(15)).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    let name = CString::new(&name[..end]).map_err(|_| Errno::INVAL)?;
    Ok(rustix::thread::set_name(&name)?)
}

/// Makes `fd` the standard output of this process.
///
/// # Errors
/// Those of `dup3`.
pub fn replace_stdout(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(fd)?)
}

/// Makes `fd` the standard input of this process.
///
/// # Errors
/// Those of `dup3`.
pub fn replace_stdin(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(fd)?)
}

/// Makes `fd` the standard error of this process.
///
/// # Errors
/// Those of `dup3`.
pub fn replace_stderr(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(fd)?)
}

/// One descriptor to watch in [`poll`].
#[derive(Debug)]
pub struct Watch<'fd> {
    fd: BorrowedFd<'fd>,
    write: bool,
    ready: bool,
}

impl<'fd> Watch<'fd> {
    /// Wait until `fd` can be read, or its other end is gone, or it is in error.
    pub fn readable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, write: false, ready: false }
    }

    /// Wait until `fd` can be written, or its other end is gone, or it is in error.
    pub fn writable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, write: true, ready: false }
    }

    /// Whether the last [`poll`] found something to do here.
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

/// Waits until one of `watches` is ready, or `timeout` has passed; returns how many are.
///
/// A signal ends the wait early with 0.
///
/// # Errors
/// `EINVAL` for more descriptors than the process may open, `ENOMEM`.
pub fn poll(watches: &mut [Watch<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut fds: Vec<PollFd<'_>> = watches
        .iter()
        .map(|watch| {
            PollFd::from_borrowed_fd(watch.fd, if watch.write { PollFlags::OUT } else { PollFlags::IN })
        })
        .collect();
    let limit = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    let count = match rustix::event::poll(&mut fds, limit.as_ref()) {
        Ok(count) => count,
        Err(Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    let ready: Vec<bool> = fds.iter().map(|fd| count > 0 && !fd.revents().is_empty()).collect();
    for (watch, ready) in watches.iter_mut().zip(ready) {
        watch.ready = ready;
    }
    Ok(count)
}

/// Number of the descriptor, for `/proc/self/fd` paths.
pub fn descriptor_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_handle_becomes_readable_when_the_process_ends() {
        let mut child = Command::new("sleep").arg("30").stdin(Stdio::null()).spawn().unwrap();
        let handle = Pidfd::open(child.id()).unwrap();
        let mut watches = [Watch::readable(handle.as_fd())];
        assert_eq!(poll(&mut watches, Some(Duration::from_millis(1))).unwrap(), 0);
        handle.signal(15).unwrap();
        poll(&mut watches, Some(Duration::from_secs(10))).unwrap();
        assert!(watches[0].is_ready());
        child.wait().unwrap();
        assert!(handle.signal(15).is_err());
    }

    #[test]
    fn numbers_that_are_no_signals_are_refused() {
        for number in [0, -1, 65, i32::MAX] {
            assert!(signal_number(number).is_err(), "{number}");
        }
        for number in [1, 9, 15, 34, 64] {
            assert_eq!(signal_number(number).unwrap().as_raw(), number);
        }
    }

    #[test]
    fn vuln_r2_descriptors_left_open_are_closed_in_programs_started_later() {
        let file = tempfile::tempfile().unwrap();
        let leaked = rustix::io::dup(&file).unwrap();
        assert!(!rustix::io::fcntl_getfd(&leaked).unwrap().contains(FdFlags::CLOEXEC));
        close_on_exec_all().unwrap();
        assert!(rustix::io::fcntl_getfd(&leaked).unwrap().contains(FdFlags::CLOEXEC));
    }
}
