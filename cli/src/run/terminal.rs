//! The user's terminal and the container's, joined.
//!
//! Two threads copy, each byte as soon as it can be read: `our input -> master`, `master -> our output`. Our terminal is raw
//! meanwhile and restored when [`Terminal`] is dropped, on every way out: return, error, panic, and the signals of
//! `signals`, none of which ends the process by itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use runtime_shim::Size;
use storage_sys::terminal::{self, RawMode};

/// Size of a terminal that nobody looks at: the VT100's.
const SIZE_DEFAULT: Size = Size { rows: 24, columns: 80 };

/// Bytes copied at once: what the kernel's terminal layer holds for a reader (`N_TTY_BUF_SIZE`), with room for several.
const COPY_BYTES: usize = 16 * 1024;

/// How long the last output may take to arrive after the process has ended. It is in the kernel's buffer by then; only
/// a process that the container left behind could hold the terminal open longer.
const DRAIN_WAIT: Duration = Duration::from_millis(500);

/// What a terminal takes for the end of input (Ctrl-D).
const END_OF_INPUT: &[u8] = &[4];

/// A container's terminal at its user's.
pub(super) struct Terminal {
    master: OwnedFd,
    raw: Option<RawMode<'static>>,
    output_ended: Option<mpsc::Receiver<()>>,
}

impl Terminal {
    /// Size of our terminal: standard output's, else standard input's.
    pub(super) fn size() -> Size {
        let size = terminal::size(io::stdout()).or_else(|_| terminal::size(io::stdin()));
        // A serial console may not know its size and says 0.
        size.ok().filter(|size| size.rows > 0 && size.columns > 0).unwrap_or(SIZE_DEFAULT)
    }

    /// Joins nothing yet.
    pub(super) fn new(master: OwnedFd) -> Self {
        Self { master, raw: None, output_ended: None }
    }

    /// Makes our terminal raw and begins to copy.
    ///
    /// # Errors
    /// Those of duplicating the master's descriptor.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        // The window may have changed since its size was given to the shim.
        self.resize();
        self.raw = enter_raw();
        let output = File::from(self.master.try_clone()?);
        let input = File::from(self.master.try_clone()?);
        let (sender, receiver) = mpsc::channel();
        self.output_ended = Some(receiver);
        thread::spawn(move || {
            copy_output(output, io::stdout());
            // Nobody waits any more when the user's side has ended first.
            let _ = sender.send(());
        });
        thread::spawn(move || copy_input(io::stdin(), input));
        Ok(())
    }

    /// Gives the container's terminal the size of ours.
    pub(super) fn resize(&self) {
        if let Err(error) = terminal::set_size(self.master.as_fd(), Self::size()) {
            tracing::debug!(%error, "the container's terminal keeps its size");
        }
    }

    /// Waits until all that the process wrote is on our terminal, then restores it.
    pub(super) fn drain(mut self) {
        if let Some(ended) = self.output_ended.take() {
            // Late output is lost to nobody: the process that writes it is not the one that was run.
            let _ = ended.recv_timeout(DRAIN_WAIT);
        }
    }
}

/// Raw mode for our standard input, when it is a terminal.
pub(super) fn enter_raw() -> Option<RawMode<'static>> {
    // Standard input is open for the whole life of the process: std reopens it on /dev/null if it was closed.
    let stdin: &'static io::Stdin = Box::leak(Box::new(io::stdin()));
    RawMode::enter(stdin.as_fd()).ok()
}

/// Copies what the process writes, until its terminal is closed (EIO) or ours is.
fn copy_output(mut from: File, to: io::Stdout) {
    let mut buffer = vec![0; COPY_BYTES];
    let mut to = to.lock();
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Copies what the user types, until the container's terminal is closed. Input that ends, ends the process's as well.
fn copy_input(from: io::Stdin, mut to: File) {
    let mut buffer = vec![0; COPY_BYTES];
    // Unbuffered: std's lock would read ahead, which is harmless, but copy twice.
    let Ok(mut from) = from.as_fd().try_clone_to_owned().map(File::from) else { return };
    loop {
        let sent = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.write_all(END_OF_INPUT);
                return;
            }
            Ok(count) => to.write_all(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
