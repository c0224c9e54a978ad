//! What containers print, kept in files: written line by line with the time, turned over when long, read back.
//!
//! ```text
//! process -> pipes -> [`keep`] -> [`Writer`] -> PATH, PATH.1, PATH.2 ... -> [`Reader`] -> `logs`
//! ```
//! One line of a file is one JSON object, `{"log":"...\n","stream":"stdout","time":"..."}`, as Docker's `json-file` driver
//! writes it, so that tools which read those read ours. A line longer than [`LINE_BYTES_MAX`] is several objects, of which
//! the last alone ends with a newline. Bytes that are not UTF-8 are there too: in `bytes`, base64.
//!
//! A file is turned over by renames alone, so a reader that has one open loses nothing. A writer that is killed leaves at
//! most one torn line, which readers pass over. Nothing is synced: a power cut may cost the last seconds.
//!
//! Not here: who runs the copying (`runtime-shim`, or `windlass log-writer` under another's shim).
#![forbid(unsafe_code)]

mod entry;
mod keep;
mod read;
mod settings;
mod write;

pub use entry::{Entry, LINE_BYTES_MAX, Stream};
pub use keep::keep;
pub use read::{Options, Reader};
pub use settings::{Settings, SettingsError};
pub use write::Writer;
