//! The JSON table of contents that eStargz and both dialects of zstd:chunked share, read entry by entry.
//!
//! ```text
//! {"version": 1, "entries": [{"name": .., "type": "reg"|"dir"|.., ..}, ..], "tarSplitDigest": ..}
//! ```
//! Source: stargz-snapshotter `docs/estargz.md` and `estargz/types.go`; containers/storage
//! `pkg/chunked/internal/minimal/compression.go`. The document is never held as a tree of values: each entry is read,
//! checked and turned into ours before the next, so memory follows [`Limits::entries_max`] and not the document (row L3).
//! A field twice is an error; a field we do not know is skipped, as both owners do.
//!
//! Not here: what stands around it in a blob (`estargz`, `zstd_chunked`); whether the table as a whole makes sense
//! ([`Toc::validate`]).

mod entry;
mod pieces;

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use storage_model::Digest;

use crate::{IndexError, Limits, Toc};

pub(crate) use entry::time;
pub(crate) use pieces::Layout;

/// What the JSON says.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) toc: Toc,
    /// Digest of the compressed tar-split, which containers/storage writes beside its table.
    pub(crate) tar_split_digest: Option<Digest>,
}

/// Reads the JSON `bytes` of a table of contents whose payload ends at `payload_end` in the blob.
///
/// The result has not been validated.
///
/// # Errors
/// [`IndexError::Json`], [`IndexError::Limit`], [`IndexError::Format`] for a version other than 1, [`IndexError::Entry`].
pub(crate) fn parse(
    bytes: &[u8],
    layout: Layout,
    payload_end: u64,
    limits: &Limits,
) -> Result<Document, IndexError> {
    let (actual, limit) = (bytes.len() as u64, limits.toc_bytes_max);
    if actual > limit {
        return Err(IndexError::Limit { what: "bytes of the table of contents", actual, limit });
    }
    let mut reading = Reading::new(layout, limits);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = deserializer.deserialize_map(Fields(&mut reading)).and_then(|()| deserializer.end());
    if let Some(error) = reading.refused {
        return Err(error);
    }
    read.map_err(|source| IndexError::Json { what: WHAT, source })?;
    if reading.version != Some(1) {
        return Err(IndexError::Format { what: WHAT, reason: "its version is not 1" });
    }
    let tar_split_digest = reading.tar_split_digest;
    Ok(Document { toc: reading.pieces.finish(reading.entries, payload_end)?, tar_split_digest })
}

const WHAT: &str = "table of contents of the layer";

/// What was read so far.
struct Reading<'l> {
    limits: &'l Limits,
    version: Option<u64>,
    tar_split_digest: Option<Digest>,
    entries: Vec<crate::Entry>,
    pieces: pieces::Pieces,
    /// Our own refusal, which serde's error cannot carry.
    refused: Option<IndexError>,
}

impl<'l> Reading<'l> {
    fn new(layout: Layout, limits: &'l Limits) -> Self {
        Self {
            limits,
            version: None,
            tar_split_digest: None,
            entries: Vec::new(),
            pieces: pieces::Pieces::new(layout),
            refused: None,
        }
    }

    fn entry(&mut self, raw: &entry::Raw<'_>) -> Result<(), IndexError> {
        let number = self.entries.len();
        if raw.is_chunk() {
            return self.pieces.continues(&self.entries, raw, self.limits);
        }
        let (actual, limit) = (number as u64 + 1, self.limits.entries_max as u64);
        if actual > limit {
            return Err(IndexError::Limit { what: "entries of the layer", actual, limit });
        }
        let entry = raw.entry(self.limits)?;
        self.pieces.begins(number, &entry, raw, self.limits)?;
        self.entries.push(entry);
        Ok(())
    }
}

/// The fields of the document.
struct Fields<'r, 'l>(&'r mut Reading<'l>);

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_entries = false;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*name {
                "version" if self.0.version.is_some() => return Err(A::Error::duplicate_field("version")),
                "version" => self.0.version = Some(map.next_value()?),
                "entries" if has_entries => return Err(A::Error::duplicate_field("entries")),
                "entries" => {
                    has_entries = true;
                    map.next_value_seed(Entries(self.0))?;
                }
                "tarSplitDigest" => self.0.tar_split_digest = entry::digest(&map.next_value::<String>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if has_entries { Ok(()) } else { Err(A::Error::missing_field("entries")) }
    }
}

/// The list of entries.
struct Entries<'r, 'l>(&'r mut Reading<'l>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(raw) = entries.next_element::<entry::Raw<'de>>()? {
            if let Err(error) = self.0.entry(&raw) {
                let text = error.to_string();
                self.0.refused = Some(error);
                return Err(A::Error::custom(text));
            }
        }
        Ok(())
    }
}
