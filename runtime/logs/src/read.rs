//! Reading a log: from its oldest file to its newest, and on as it grows.
//!
//! A reader holds the file it is in open, so renames do not move it. At the end of a file it asks where its file is now: as
//! number 3, say, so number 2 comes next; as number 0, so this is all there is, until more is written. When its file has
//! gone (it was the oldest), the oldest that is left comes next: lines between are lost, as they are from the disk.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::entry::{ENTRY_BYTES_MAX, Entry};
use crate::write::numbered;

/// Most files that are looked for.
const FILES_MAX: u32 = 1000;

/// What of a log is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The last so many lines alone.
    pub tail: Option<usize>,
    /// Nothing printed before.
    pub since: Option<SystemTime>,
    /// Nothing printed at this time or after.
    pub until: Option<SystemTime>,
}

/// Entries of a log, in order. `None` means that there are no more *now*: asked again later, it goes on.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: Options,
    current: Option<Current>,
    /// Entries that were read ahead, to find the last lines.
    ahead: VecDeque<Entry>,
}

#[derive(Debug)]
struct Current {
    file: BufReader<File>,
    identity: (u64, u64),
}

impl Current {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                let identity = (metadata.dev(), metadata.ino());
                Ok(Some(Self { file: BufReader::new(file), identity }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next whole line; `None` at the end, or before a line that is still being written.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = ENTRY_BYTES_MAX as u64;
        self.file.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") || line.len() as u64 == limit {
            return Ok(Some(line));
        }
        // Torn: read it again when there is more.
        let back = i64::try_from(line.len()).unwrap_or(0);
        self.file.seek(SeekFrom::Current(-back))?;
        Ok(None)
    }
}

impl Reader {
    /// Opens the log at `path`; one that is not there yet is empty.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn open(path: &Path, options: &Options) -> io::Result<Self> {
        let mut reader =
            Self { path: path.to_owned(), options: *options, current: None, ahead: VecDeque::new() };
        if let Some(lines) = options.tail {
            reader.read_tail(lines)?;
        }
        Ok(reader)
    }

    /// Reads all there is, keeping the last `lines` lines of it.
    fn read_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut kept: VecDeque<Entry> = VecDeque::new();
        let mut whole = 0;
        while let Some(entry) = self.entry()? {
            whole += usize::from(entry.bytes.ends_with(b"\n"));
            kept.push_back(entry);
            // The last line may lack its end: it counts.
            let unfinished = kept.back().is_some_and(|entry| !entry.bytes.ends_with(b"\n"));
            while whole + usize::from(unfinished) > lines {
                let Some(gone) = kept.pop_front() else { break };
                whole -= usize::from(gone.bytes.ends_with(b"\n"));
            }
            // Pieces of a line whose beginning has gone are no line.
            if lines == 0 {
                kept.clear();
                whole = 0;
            }
        }
        self.ahead = kept;
        Ok(())
    }

    fn entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if self.current.is_none() {
                self.current = self.oldest()?;
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            match current.line()? {
                Some(line) => {
                    let entry = Entry::decode(&line).filter(|entry| self.wants(entry));
                    if entry.is_some() {
                        return Ok(entry);
                    }
                }
                None if self.turn()? => {}
                None => return Ok(None),
            }
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.options.since.is_none_or(|since| entry.time >= since)
            && self.options.until.is_none_or(|until| entry.time < until)
    }

    /// Names of the files there are, newest first.
    fn files(&self) -> Vec<PathBuf> {
        let paths = (0..FILES_MAX).map(|number| numbered(&self.path, number));
        // Number 0 may be missing for a moment, while it is turned over.
        paths
            .enumerate()
            .take_while(|(number, path)| *number == 0 || path.exists())
            .map(|(_, path)| path)
            .collect()
    }

    fn oldest(&self) -> io::Result<Option<Current>> {
        for path in self.files().iter().rev() {
            if let Some(found) = Current::open(path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Goes to the file after the one that has been read to its end; false when that is the newest.
    fn turn(&mut self) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let identity = current.identity;
        let files = self.files();
        let at = files.iter().position(|path| {
            fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == identity)
        });
        if at == Some(0) {
            return Ok(false);
        }
        // Lines written between our reading of its end and its turning are there by now, and come first.
        if let Some(current) = &mut self.current
            && let Some(line) = current.line()?
        {
            let back = i64::try_from(line.len()).unwrap_or(0);
            current.file.seek(SeekFrom::Current(-back))?;
            return Ok(true);
        }
        self.current = match at {
            Some(at) => Current::open(&files[at - 1])?,
            None => self.oldest()?,
        };
        Ok(self.current.is_some())
    }
}

impl Iterator for Reader {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        match self.ahead.pop_front() {
            Some(entry) => Some(Ok(entry)),
            None => self.entry().transpose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Stream;
    use crate::settings::Settings;
    use crate::write::Writer;
    use std::time::Duration;

    fn texts(reader: &mut Reader) -> Vec<String> {
        reader.map(|entry| String::from_utf8(entry.unwrap().bytes).unwrap()).collect()
    }

    #[test]
    fn a_reader_follows_through_every_turn_of_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut reader = Reader::open(&path, &Options::default()).unwrap();
        assert!(texts(&mut reader).is_empty(), "a log that is not there yet is empty");
        let settings = Settings { file_bytes_max: Some(4096), files_max: 4 };
        let mut writer = Writer::open(&path, settings).unwrap();
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        for round in 0..40 {
            // Up to two turns between two looks.
            for number in 0..round * 3 % 100 {
                let line = format!("line {round} {number}\n");
                writer.write(Stream::Stdout, line.as_bytes()).unwrap();
                written.push(line);
            }
            seen.extend(texts(&mut reader));
            assert_eq!(seen, written, "after round {round}");
        }
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::open(&path, Settings::default()).unwrap();
        writer.write(Stream::Stdout, b"a\nb\nc\n").unwrap();
        for (lines, expected) in
            [(0, &[][..]), (1, &["c\n"]), (2, &["b\n", "c\n"]), (9, &["a\n", "b\n", "c\n"])]
        {
            let options = Options { tail: Some(lines), ..Options::default() };
            let mut reader = Reader::open(&path, &options).unwrap();
            assert_eq!(texts(&mut reader), expected, "{lines}");
            writer.write(Stream::Stdout, b"").unwrap();
        }
        writer.write(Stream::Stdout, b"end").unwrap();
        writer.end(Stream::Stdout).unwrap();
        let options = Options { tail: Some(2), ..Options::default() };
        assert_eq!(texts(&mut Reader::open(&path, &options).unwrap()), ["c\n", "end"]);
    }

    #[test]
    fn times_choose_and_torn_lines_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let entry = |second: u64| Entry {
            bytes: format!("{second}\n").into_bytes(),
            stream: Stream::Stdout,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let mut text: Vec<u8> = (1..=5).flat_map(|second| entry(second).encode()).collect();
        text.extend(b"{\"log\":\"to\n");
        text.extend(entry(6).encode());
        fs::write(&path, text).unwrap();
        let at = |second: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let options = Options { tail: None, since: at(3), until: at(6) };
        assert_eq!(texts(&mut Reader::open(&path, &options).unwrap()), ["3\n", "4\n", "5\n"]);
        assert_eq!(texts(&mut Reader::open(&path, &Options::default()).unwrap()).len(), 6);
    }
}
