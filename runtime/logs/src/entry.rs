//! One line of a log.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest piece of a line that one entry holds, in bytes: Docker's and Kubernetes's 16 KiB.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Longest text of an entry that a reader takes: a piece, each byte escaped as `\u00XX`, and again as base64.
pub(crate) const ENTRY_BYTES_MAX: usize = LINE_BYTES_MAX * 8 + 512;

/// Where a process printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was printed; ends with a newline if the line does here.
    pub bytes: Vec<u8>,
    /// Where.
    pub stream: Stream,
    /// When it arrived.
    pub time: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    stream: Stream,
    time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Entry {
    /// The entry as a line of a file, its newline included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.bytes);
        let bytes = std::str::from_utf8(&self.bytes).is_err().then(|| STANDARD.encode(&self.bytes));
        let time = OffsetDateTime::from(self.time).format(&Rfc3339).unwrap_or_default();
        let line = Line { log: text, stream: self.stream, time, bytes };
        // A struct of strings: there is nothing in it that JSON cannot say.
        let mut encoded = serde_json::to_vec(&line).unwrap_or_default();
        encoded.push(b'\n');
        encoded
    }

    /// The entry of one line of a file; `None` for a torn one, or one that is none.
    pub(crate) fn decode(line: &[u8]) -> Option<Self> {
        let Line { log, stream, time, bytes } = serde_json::from_slice(line).ok()?;
        let bytes = match bytes {
            Some(text) => STANDARD.decode(text).ok()?,
            None => log.into_owned().into_bytes(),
        };
        let time = OffsetDateTime::parse(&time, &Rfc3339).ok()?.into();
        Some(Self { bytes, stream, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn an_entry_is_what_dockers_driver_writes() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let entry = Entry { bytes: b"hello \"you\"\n".to_vec(), stream: Stream::Stdout, time };
        let text = String::from_utf8(entry.encode()).unwrap();
        assert_eq!(
            text,
            "{\"log\":\"hello \\\"you\\\"\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.123456789Z\"}\n"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_they_went_in(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0u64..1 << 60) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(at);
            let entry = Entry { bytes, stream: Stream::Stderr, time };
            let line = entry.encode();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(Entry::decode(&line), Some(entry));
        }

        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(&line);
        }
    }
}
