//! From a process's pipes into its log.

use std::io::{ErrorKind, Read};
use std::sync::{Mutex, PoisonError};

use crate::entry::Stream;
use crate::write::Writer;

/// Bytes taken from a pipe at once: all that a pipe holds by default.
const COPY_BYTES: usize = 64 * 1024;

/// Copies both streams into `writer` until both have ended. A log that cannot be written (a full disk) stops no process:
/// its output is read and lost, and the first failure is told to the log of this program.
pub fn keep(stdout: Option<impl Read + Send>, stderr: Option<impl Read + Send>, writer: Writer) {
    let writer = Mutex::new(writer);
    std::thread::scope(|scope| {
        if let Some(stderr) = stderr {
            scope.spawn(|| copy(stderr, Stream::Stderr, &writer));
        }
        if let Some(stdout) = stdout {
            copy(stdout, Stream::Stdout, &writer);
        }
    });
}

fn copy(mut from: impl Read, stream: Stream, writer: &Mutex<Writer>) {
    let mut buffer = vec![0; COPY_BYTES];
    let mut failed = false;
    let mut told = |outcome: std::io::Result<()>| {
        if let Err(error) = outcome
            && !std::mem::replace(&mut failed, true)
        {
            tracing::warn!(%error, ?stream, "output of a container is lost");
        }
    };
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                told(writer.write(stream, &buffer[..count]));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The master of a terminal whose last process has gone reads as an error.
            Err(_) => break,
        }
    }
    told(writer.lock().unwrap_or_else(PoisonError::into_inner).end(stream));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{Options, Reader};
    use crate::settings::Settings;
    use std::io::Write;

    #[test]
    fn both_streams_are_kept_to_their_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (out, mut to_out) = std::io::pipe().unwrap();
        let (err, mut to_err) = std::io::pipe().unwrap();
        let writer = Writer::open(&path, Settings::default()).unwrap();
        let keeper = std::thread::spawn(move || keep(Some(out), Some(err), writer));
        to_err.write_all(b"warning\n").unwrap();
        drop(to_err);
        for number in 0..10_000 {
            writeln!(to_out, "{number}").unwrap();
        }
        drop(to_out);
        keeper.join().unwrap();
        let entries: Vec<_> = Reader::open(&path, &Options::default()).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 10_001);
        assert_eq!(entries.iter().filter(|entry| entry.stream == Stream::Stderr).count(), 1);
        let printed = entries.iter().filter(|entry| entry.stream == Stream::Stdout);
        assert!(printed.enumerate().all(|(number, entry)| entry.bytes == format!("{number}\n").as_bytes()));
    }

    #[test]
    fn a_log_that_cannot_be_written_stops_nobody() {
        let (out, mut to_out) = std::io::pipe().unwrap();
        let writer = Writer::open(std::path::Path::new("/dev/full"), Settings::default()).unwrap();
        let keeper = std::thread::spawn(move || keep(Some(out), None::<std::io::PipeReader>, writer));
        to_out.write_all(&vec![b'\n'; 300_000]).unwrap();
        drop(to_out);
        keeper.join().unwrap();
    }
}
