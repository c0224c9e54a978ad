//! Terminals: window size, raw mode, pseudoterminal pairs.
//!
//! Not here: copying between a terminal and a program (the caller's loop).
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// Size of a terminal window, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// Window size of the terminal `fd`.
///
/// # Errors
/// `ENOTTY` when it is no terminal.
pub fn size(fd: impl AsFd) -> io::Result<Size> {
    let size = rustix::termios::tcgetwinsize(fd)?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the window size of the terminal `fd` (either end of a pair); its foreground programs get SIGWINCH if it changed.
///
/// # Errors
/// `ENOTTY` when it is no terminal.
pub fn set_size(fd: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(fd, size)?)
}

/// A terminal in raw mode; dropping it restores what was before.
#[derive(Debug)]
pub struct RawMode<'fd> {
    fd: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> RawMode<'fd> {
    /// Switches `fd` to raw mode: every key goes through as it is, Ctrl-C included.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn enter(fd: BorrowedFd<'fd>) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(fd, OptionalActions::Drain, &raw)?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // The terminal may be gone by now: then there is nothing to restore.
        let _ = rustix::termios::tcsetattr(self.fd, OptionalActions::Drain, &self.before);
    }
}

/// A pseudoterminal: what is written to one end is read at the other.
#[derive(Debug)]
pub struct Pair {
    /// The end of who shows the terminal.
    pub master: OwnedFd,
    /// The end of the program.
    pub slave: OwnedFd,
}

/// Makes a pseudoterminal; neither end becomes a controlling terminal.
///
/// # Errors
/// `ENOSPC` when the machine has no pseudoterminal left, `ENOENT` without `/dev/ptmx`.
pub fn open_pair() -> io::Result<Pair> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pair { master, slave })
}

/// Makes reads and writes on `fd` answer `WouldBlock` instead of waiting.
///
/// The flag belongs to the open file: every holder of the same open file sees it. Set it only on files of one's own.
///
/// # Errors
/// Those of `fcntl`.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn a_pair_carries_bytes_and_one_window_size() {
        let pair = open_pair().unwrap();
        set_size(&pair.master, Size { rows: 33, columns: 101 }).unwrap();
        assert_eq!(size(&pair.slave).unwrap(), Size { rows: 33, columns: 101 });
        File::from(pair.slave.try_clone().unwrap()).write_all(b"hello").unwrap();
        let mut seen = [0; 5];
        File::from(pair.master).read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"hello");
    }

    #[test]
    fn raw_mode_ends_when_it_is_dropped() {
        let pair = open_pair().unwrap();
        let echoes = |fd: &OwnedFd| {
            let modes = rustix::termios::tcgetattr(fd).unwrap().local_modes;
            modes.contains(rustix::termios::LocalModes::ECHO)
        };
        assert!(echoes(&pair.slave));
        {
            let _raw = RawMode::enter(pair.slave.as_fd()).unwrap();
            assert!(!echoes(&pair.slave));
        }
        assert!(echoes(&pair.slave));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = tempfile::tempfile().unwrap();
        assert!(size(&file).is_err());
        assert!(RawMode::enter(file.as_fd()).is_err());
    }
}
