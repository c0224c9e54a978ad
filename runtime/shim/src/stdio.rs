//! Which descriptors a container's process really gets.
//!
//! OCI runtimes give standard input, output and error to the container's user (`fchown`), and the container may do to
//! them whatever their open mode allows. So a descriptor of the client goes in directly only when that is harmless: an
//! anonymous pipe, a socket, `/dev/null`, or a file that belongs to that user already. A terminal of the host, or a
//! file of somebody else, stays outside: a pipe goes in, and a thread copies.
//!
//! When standard output and error are one and the same file outside, they are one and the same pipe inside: what the
//! process writes keeps its order.
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use storage_sys::process::descriptor_path;

/// The three descriptors for the OCI runtime.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// The threads that copy for a container.
#[derive(Debug, Default)]
pub struct Relays {
    outputs: Vec<mpsc::Receiver<()>>,
}

impl Relays {
    /// Waits until everything the container wrote has been passed on, or until nobody took it for `limit`.
    pub fn finish(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for output in self.outputs {
            // Only the end of the thread drops the sender.
            let _ = output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// A pipe for a process to write to, and a thread that passes on to `target` what it writes.
    ///
    /// # Errors
    /// Those of making pipes and threads.
    pub(crate) fn copy_out(&mut self, target: OwnedFd) -> io::Result<OwnedFd> {
        let (reader, writer) = io::pipe()?;
        // When the target fails, the pipe closes and the container learns of it by SIGPIPE, as it would directly.
        self.copy_between(reader.into(), target)?;
        Ok(writer.into())
    }

    /// Pipes for a process to write its output and errors to, and threads that keep both in a log.
    ///
    /// # Errors
    /// Those of making pipes and threads.
    pub(crate) fn keep(&mut self, writer: runtime_logs::Writer) -> io::Result<(OwnedFd, OwnedFd)> {
        let (out, to_out) = io::pipe()?;
        let (err, to_err) = io::pipe()?;
        let (sender, receiver) = mpsc::channel();
        thread("keep-log", move || {
            runtime_logs::keep(Some(out), Some(err), writer);
            drop(sender);
        })?;
        self.outputs.push(receiver);
        Ok((to_out.into(), to_err.into()))
    }

    /// A thread that passes on what comes from `source` until it ends, or `target` fails.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(crate) fn copy_between(&mut self, source: OwnedFd, target: OwnedFd) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel();
        thread("copy-out", move || {
            let _ = io::copy(&mut File::from(source), &mut File::from(target));
            drop(sender);
        })?;
        self.outputs.push(receiver);
        Ok(())
    }
}

/// A pipe for a process to read from, and a thread that feeds it from `source`.
///
/// # Errors
/// Those of making pipes and threads.
pub(crate) fn copy_in(source: OwnedFd) -> io::Result<OwnedFd> {
    let (reader, mut writer) = io::pipe()?;
    thread("copy-in", move || {
        // It ends with the source, or when the container closes its input, or with this process.
        let _ = io::copy(&mut File::from(source), &mut writer);
    })?;
    Ok(reader.into())
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(128 * 1024).spawn(work).map(drop)
}

/// Turns the client's descriptors into those of a container whose process runs as `uid`.
///
/// # Errors
/// Those of looking at the descriptors and of making pipes and threads.
pub fn shield(client: [OwnedFd; 3], uid: u32) -> io::Result<(Stdio, Relays)> {
    let [stdin, stdout, stderr] = client;
    let mut relays = Relays::default();
    let stdin = if is_harmless(&stdin, uid)? { stdin } else { copy_in(stdin)? };
    let (stdout_goes_in, stderr_goes_in) = (is_harmless(&stdout, uid)?, is_harmless(&stderr, uid)?);
    let one_file = !stdout_goes_in && !stderr_goes_in && identity(&stdout)? == identity(&stderr)?;
    let stdout = if stdout_goes_in { stdout } else { relays.copy_out(stdout)? };
    let stderr = if stderr_goes_in {
        stderr
    } else if one_file {
        stdout.try_clone()?
    } else {
        relays.copy_out(stderr)?
    };
    Ok((Stdio { stdin, stdout, stderr }, relays))
}

/// Whether the container may have the open file itself.
fn is_harmless(fd: &OwnedFd, uid: u32) -> io::Result<bool> {
    if fd.is_terminal() {
        return Ok(false);
    }
    let metadata = File::from(fd.try_clone()?).metadata()?;
    let kind = metadata.file_type();
    if kind.is_socket() || metadata.uid() == uid {
        return Ok(true);
    }
    let name = fs::read_link(descriptor_path(fd))?;
    if kind.is_fifo() {
        // One with a name belongs to somebody; one without is the client's alone.
        return Ok(name.to_string_lossy().starts_with("pipe:["));
    }
    Ok(kind.is_char_device() && name.as_os_str() == "/dev/null")
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let metadata = File::from(fd.try_clone()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    /// A user that owns nothing here.
    const STRANGER: u32 = 54_321;

    fn null() -> OwnedFd {
        File::options().read(true).write(true).open("/dev/null").unwrap().into()
    }

    #[test]
    fn pipes_and_null_go_in_as_they_are() {
        let (reader, writer) = io::pipe().unwrap();
        let inode = identity(&OwnedFd::from(writer.try_clone().unwrap())).unwrap();
        let (stdio, relays) = shield([reader.into(), writer.into(), null()], STRANGER).unwrap();
        assert_eq!(identity(&stdio.stdout).unwrap(), inode);
        assert!(relays.outputs.is_empty());
    }

    #[test]
    fn a_file_of_somebody_else_never_goes_in_but_gets_every_byte_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let [out, err] = [(); 2].map(|()| OwnedFd::from(file.try_clone().unwrap()));
        let before = identity(&out).unwrap();
        let (stdio, relays) = shield([null(), out, err], STRANGER).unwrap();
        assert_ne!(identity(&stdio.stdout).unwrap(), before);
        assert_eq!(identity(&stdio.stdout).unwrap(), identity(&stdio.stderr).unwrap());
        File::from(stdio.stdout).write_all(b"one ").unwrap();
        File::from(stdio.stderr).write_all(b"two").unwrap();
        relays.finish(Duration::from_secs(10));
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[test]
    fn a_file_of_the_containers_user_goes_in_itself() {
        let file = tempfile::tempfile().unwrap();
        let uid = file.metadata().unwrap().uid();
        let out = OwnedFd::from(file.try_clone().unwrap());
        let before = identity(&out).unwrap();
        let (stdio, _) = shield([null(), out, null()], uid).unwrap();
        assert_eq!(identity(&stdio.stdout).unwrap(), before);
    }

    #[test]
    fn a_terminal_of_the_host_never_goes_in() {
        let pair = storage_sys::terminal::open_pair().unwrap();
        let [input, out] = [(); 2].map(|()| pair.slave.try_clone().unwrap());
        let (stdio, _relays) = shield([input, out, null()], 0).unwrap();
        assert!(!stdio.stdin.is_terminal() && !stdio.stdout.is_terminal());
    }
}
