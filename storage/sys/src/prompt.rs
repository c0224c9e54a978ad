//! Asking for a secret on a terminal.
//!
//! Not here: raw mode for a whole program (`terminal`).
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Longest line that is read, in bytes: what a terminal in line mode holds (`N_TTY_BUF_SIZE` in the kernel's `n_tty.c`).
const LINE_BYTES_MAX: usize = 4096;

/// The character a terminal sends for Ctrl-C.
const CTRL_C: u8 = 3;

/// A terminal that does not show what is typed; dropping it restores what was before.
struct Hidden<'file> {
    terminal: &'file File,
    before: Termios,
}

impl<'file> Hidden<'file> {
    fn enter(terminal: &'file File) -> io::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
        // Without signals Ctrl-C is a character; this makes it end the line.
        hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        // What was typed before the question was meant for somebody else.
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // The terminal may be gone by now: then there is nothing to restore.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Drain, &self.before);
    }
}

/// Writes `question` to the controlling terminal and reads a line from it that is not shown.
///
/// Signals from the keyboard are off meanwhile, so that the terminal is restored on every way out; Ctrl-C typed into the
/// line ends the question with `Interrupted`.
///
/// # Errors
/// `ENXIO` without a controlling terminal; `UnexpectedEof` for Ctrl-D or an empty line; `Interrupted` for Ctrl-C;
/// `InvalidData` for what is no UTF-8.
pub fn password(question: &str) -> io::Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    // First: whoever answers as soon as the question is seen must not be shown.
    let hidden = Hidden::enter(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    // In line mode one read is one line, whichever character ended it.
    let mut buffer = [0; LINE_BYTES_MAX];
    let count = (&terminal).read(&mut buffer)?;
    drop(hidden);
    let line = std::str::from_utf8(&buffer[..count])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if line.contains(char::from(CTRL_C)) {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    match line.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing was typed")),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::open_pair;

    #[test]
    fn a_hidden_terminal_shows_nothing_and_is_restored() {
        let pair = open_pair().unwrap();
        let terminal = File::from(pair.slave);
        let shows = || tcgetattr(terminal.as_fd()).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(shows());
        let hidden = Hidden::enter(&terminal).unwrap();
        assert!(!shows());
        drop(hidden);
        assert!(shows());
    }
}
