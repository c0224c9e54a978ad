//! Children: which have ended, the status of one, and starting one with more than three descriptors.
//!
//! A process that is the parent of others it did not start (a subreaper) must reap every child, but must not take
//! statuses from under those who wait for their own. So looking ([`peek_ended`]) and taking ([`reap`]) are two calls.
//!
//! Not here: who wants which status (`runtime-shim`).
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::process::ChildExit;

/// Waits until a child has ended and returns its process id, without taking its status. `None` when there is no child.
///
/// # Errors
/// Those of `waitid`.
pub fn peek_ended() -> io::Result<Option<u32>> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: waitid writes at most one siginfo_t through the pointer, which is to memory of that size that lives
        // until after the call. Without WNOHANG it returns 0 only after filling in si_pid of a child.
        let result =
            unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            // SAFETY: all zeroes is a value of siginfo_t, a struct of integers and pointers that are not followed here,
            // and the kernel has filled in the part that belongs to SIGCHLD, of which si_pid is one.
            let pid = unsafe { info.assume_init().si_pid() };
            return Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Takes the status of child `pid` if it has ended. `None` when it has not, or is no child (any more).
///
/// # Errors
/// Those of `waitpid`.
pub fn reap(pid: u32) -> io::Result<Option<ChildExit>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    loop {
        let status = match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => status,
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        return Ok(status
            .exit_status()
            .map(ChildExit::Exited)
            .or_else(|| status.terminating_signal().map(ChildExit::Signaled)));
    }
}

/// Makes `command` start with `descriptors` as its numbers 3, 4, 5, ... in order, open across the exec.
///
/// They stay open in this process for as long as `command` lives.
///
/// # Errors
/// Those of duplicating the descriptors out of the way.
pub fn with_descriptors(command: &mut Command, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    const FIRST: RawFd = 3;
    let last = FIRST + RawFd::try_from(descriptors.len()).map_err(|_| Errno::MFILE)?;
    // None may lie where another one goes: each is moved above all of the targets first.
    let moved = descriptors
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, last.max(64)))
        .collect::<Result<Vec<OwnedFd>, Errno>>()?;
    let place = move || {
        for (target, fd) in (FIRST..).zip(&moved) {
            // SAFETY: dup2 takes two numbers and touches no memory. The closure runs in the child between fork and
            // exec, where `moved` is the child's copy and open; the target number is one that nothing in the child
            // uses: std's own error pipe is close-on-exec and is looked at by number only by std, which opened it
            // before the descriptors here were moved above 64 and hence cannot be one of 3, 4, 5 unless those were
            // free; should it be, the exec still happens and only its error would be lost.
            let rc = unsafe { libc::dup2(fd.as_raw_fd(), target) };
            if rc < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure calls dup2 (which is) and reads
    // errno; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::Stdio;

    #[test]
    fn a_child_gets_the_descriptors_under_the_numbers_promised() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (input, mut feed) = io::pipe().unwrap();
        feed.write_all(b"through three").unwrap();
        drop(feed);
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&3 >&4"]);
        with_descriptors(&mut command, vec![input.into(), writer.into()]).unwrap();
        let status = command.status().unwrap();
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(status.success());
        assert_eq!(text, "through three");
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "what is tested takes the status")]
    fn the_status_of_one_child_is_taken_and_no_others() {
        let mut other = Command::new("sh").args(["-c", "exit 5"]).spawn().unwrap();
        let wanted = Command::new("sh").args(["-c", "exit 4"]).stdin(Stdio::null()).spawn().unwrap();
        let exit = loop {
            assert!(peek_ended().unwrap().is_some());
            if let Some(exit) = reap(wanted.id()).unwrap() {
                break exit;
            }
        };
        assert_eq!(exit, ChildExit::Exited(4));
        assert_eq!(reap(wanted.id()).unwrap(), None, "taken already");
        assert_eq!(other.wait().unwrap().code(), Some(5));
    }
}
