//! Writing a log: pieces of output become entries, files are turned over.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::entry::{Entry, LINE_BYTES_MAX, Stream};
use crate::settings::Settings;

/// File number `number` of the log at `path`; 0 is the newest.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

/// The one writer of a log.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    settings: Settings,
    file: File,
    /// Bytes in `file`.
    file_bytes: u64,
    /// What each stream printed since its last newline; shorter than [`LINE_BYTES_MAX`].
    begun: [Vec<u8>; 2],
}

impl Writer {
    /// Opens the log at `path`, to write behind what is there. Readable by its owner alone: output may hold secrets.
    ///
    /// # Errors
    /// Those of opening a file.
    pub fn open(path: &Path, settings: Settings) -> io::Result<Self> {
        let file = open(path)?;
        let file_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), settings, file, file_bytes, begun: [Vec::new(), Vec::new()] })
    }

    /// Takes what `stream` printed. Whole lines are in the file when this returns; the beginning of one waits for its end.
    ///
    /// # Errors
    /// Those of writing a file; what could not be written is lost, later output is not.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut outcome = Ok(());
        let mut begun = std::mem::take(&mut self.begun[stream as usize]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            while begun.len() >= LINE_BYTES_MAX {
                let rest = begun.split_off(cut(&begun));
                outcome = outcome.and(self.put(stream, std::mem::replace(&mut begun, rest)));
            }
            if begun.ends_with(b"\n") {
                outcome = outcome.and(self.put(stream, std::mem::take(&mut begun)));
            }
        }
        self.begun[stream as usize] = begun;
        outcome
    }

    /// Writes what a stream printed last without ending the line: it prints no more.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn end(&mut self, stream: Stream) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if begun.is_empty() { Ok(()) } else { self.put(stream, begun) }
    }

    fn put(&mut self, stream: Stream, bytes: Vec<u8>) -> io::Result<()> {
        let line = Entry { bytes, stream, time: SystemTime::now() }.encode();
        let bytes = line.len() as u64;
        if let Some(limit) = self.settings.file_bytes_max
            && self.file_bytes > 0
            && self.file_bytes + bytes > limit
        {
            self.turn()?;
        }
        // One write an entry: a writer that is killed tears the last one at most.
        self.file.write_all(&line)?;
        self.file_bytes += bytes;
        Ok(())
    }

    /// `PATH.1 -> PATH.2`, `PATH -> PATH.1`, and a new `PATH`. The oldest goes first, so that there are never too many.
    fn turn(&mut self) -> io::Result<()> {
        let kept = self.settings.files_max.max(1);
        remove(&numbered(&self.path, kept - 1))?;
        for number in (0..kept - 1).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open(&self.path)?;
        self.file_bytes = self.file.metadata()?.len();
        Ok(())
    }
}

/// Where a piece of [`LINE_BYTES_MAX`] ends without tearing a character in two.
fn cut(bytes: &[u8]) -> usize {
    let is_boundary = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(is_boundary).unwrap_or(LINE_BYTES_MAX)
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{Options, Reader};
    use proptest::prelude::*;

    fn all(path: &Path) -> Vec<Entry> {
        Reader::open(path, &Options::default()).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn lines_are_entries_and_the_last_needs_no_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::open(&path, Settings::default()).unwrap();
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stderr, b"oops\n").unwrap();
        writer.write(Stream::Stdout, b"o\nlast").unwrap();
        writer.end(Stream::Stdout).unwrap();
        writer.end(Stream::Stderr).unwrap();
        let texts: Vec<_> =
            all(&path).iter().map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned()).collect();
        assert_eq!(texts, ["one\n", "oops\n", "two\n", "last"]);
    }

    #[test]
    fn files_are_turned_over_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let settings = Settings { file_bytes_max: Some(4096), files_max: 3 };
        let mut writer = Writer::open(&path, settings).unwrap();
        for number in 0..1000 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        for number in 0..3 {
            assert!(fs::metadata(numbered(&path, number)).unwrap().len() <= 4096);
        }
        let entries = all(&path);
        assert_eq!(entries.last().unwrap().bytes, b"line 999\n");
        let first: usize = String::from_utf8_lossy(&entries[0].bytes).trim()[5..].parse().unwrap();
        assert_eq!(entries.len(), 1000 - first);
        // A writer that comes after another one writes behind it.
        drop(writer);
        Writer::open(&path, settings).unwrap().write(Stream::Stdout, b"after\n").unwrap();
        assert_eq!(all(&path).last().unwrap().bytes, b"after\n");
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..12)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let mut writer = Writer::open(&path, Settings { file_bytes_max: None, files_max: 1 }).unwrap();
            for piece in &pieces {
                writer.write(Stream::Stdout, piece).unwrap();
            }
            writer.end(Stream::Stdout).unwrap();
            let written = pieces.concat();
            let entries = if written.is_empty() { Vec::new() } else { all(&path) };
            prop_assert!(entries.iter().all(|entry| entry.bytes.len() <= LINE_BYTES_MAX));
            prop_assert_eq!(entries.into_iter().flat_map(|entry| entry.bytes).collect::<Vec<_>>(), written);
        }
    }
}
