//! What an image tells of itself: how much is here, what was waited for, and what was read in which order.

use serde::{Deserialize, Serialize};

/// State of an image at one moment. Goes over the control socket as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageStatus {
    /// Name it was given.
    pub name: String,
    /// Bytes of all its files, each hard-linked file once.
    pub bytes_total: u64,
    /// Bytes of its files that are in the cache. bytes_present <= bytes_total.
    pub bytes_present: u64,
    /// Compressed bytes of all its blobs.
    pub blob_bytes_total: u64,
    /// Whether everything is here: no read will need the network.
    pub complete: bool,
    /// Whether the background is bringing in the rest.
    pub filling: bool,
    /// Ranges asked for on behalf of this image.
    pub requests: u64,
    /// Bytes received on behalf of this image, as they come over the wire without headers.
    pub bytes_fetched: u64,
    /// Reads that had to wait for bytes from elsewhere.
    pub faults: u64,
    /// Time all of these waited together, in microseconds.
    pub fault_wait_us: u64,
    /// Reads that failed.
    pub failures: u64,
    /// The latest faults, the oldest first, at most [`RECENT_FAULTS_MAX`].
    pub recent: Vec<FaultNote>,
    /// Why the background stopped before the end, in words; `None` if it did not.
    pub fill_error: Option<String>,
}

/// Most faults that are remembered for people.
pub const RECENT_FAULTS_MAX: usize = 32;

/// A read that had to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultNote {
    /// Path in the image, as in [`TraceEvent::path`].
    pub path: String,
    /// First byte that was read.
    pub offset: u64,
    /// Bytes that were asked for.
    pub length: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_unix_ms: u64,
    /// How long it waited, in microseconds.
    pub wait_us: u64,
    /// Who sent the bytes: a host, or `local`. Empty if nobody did.
    pub source: String,
    /// Why it failed, in words; `None` if it did not.
    pub error: Option<String>,
}

/// What was read of an image since it was opened, in the order of the first time: what to bring in first next time.
///
/// By path and not by number, so that it fits another version and another format of the image as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Version of this format: 1.
    pub version: u32,
    /// Name of the image.
    pub image: String,
    /// The reads.
    pub events: Vec<TraceEvent>,
}

/// The version of [`Trace`] that is written.
pub const TRACE_VERSION: u32 = 1;
/// Most events a trace keeps: a start that touches more than this many files is not helped by a list.
pub const TRACE_EVENTS_MAX: usize = 50_000;

/// The first read of a part of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceEvent {
    /// Path in the image without a slash in front. Bytes that are not UTF-8, control characters and `%` are written `%XX`
    /// ([`encode_path`]).
    pub path: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Milliseconds after the image was opened.
    pub at_ms: u64,
}

/// A path as text, without loss: see [`TraceEvent::path`].
pub fn encode_path(path: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '%' => text.push_str("%25"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    for byte in c.encode_utf8(&mut bytes).bytes() {
                        write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
                    }
                }
                c => text.push(c),
            }
        }
        for byte in part.invalid() {
            write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    text
}

/// The path that [`encode_path`] wrote; `None` if `text` is nothing it writes.
pub fn decode_path(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        let digit = |c: u8| char::from(c).to_digit(16);
        path.push((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
        rest = after;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_that_is_no_text_survives_json() {
        let path = b"etc/100%/\xff\xfe\n/\xc3\xa9";
        let text = encode_path(path);
        assert_eq!(text, "etc/100%25/%FF%FE%0A/\u{e9}");
        assert_eq!(decode_path(&text).unwrap(), path);
        assert_eq!(decode_path("a%2"), None);
        assert_eq!(decode_path("a%zz"), None);
    }

    proptest! {
        #[test]
        fn every_path_reads_back(path: Vec<u8>) {
            prop_assert_eq!(decode_path(&encode_path(&path)).unwrap(), path);
        }
    }
}
