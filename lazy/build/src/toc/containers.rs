//! The table of contents of containers/storage: its dialect of zstd:chunked.
//!
//! Formats: `pkg/chunked/internal/minimal` of containers/storage. Its readers hold every field against the tar's header
//! (`ensureFileMetadataMatches`), so names, modes and times are those of the tar, untouched.

use std::collections::BTreeMap;

use serde::Serialize;
use storage_model::Digest;

use super::{SKIPPABLE_HEADER_BYTES, is_zero, kind, link, skippable, text, time, xattrs};
use crate::BuildError;
use crate::encode::{Codec, Output, Placed};
use crate::plan::{Plan, Planned};

#[derive(Serialize)]
struct Toc<'a> {
    version: u32,
    entries: Vec<Row<'a>>,
    #[serde(rename = "tarSplitDigest", skip_serializing_if = "Option::is_none")]
    tar_split_digest: Option<Digest>,
}

#[derive(Serialize, Default)]
struct Row<'a> {
    r#type: &'static str,
    name: &'a str,
    #[serde(rename = "linkName", skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accesstime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changetime: Option<String>,
    #[serde(rename = "devMajor", skip_serializing_if = "is_zero")]
    major: i64,
    #[serde(rename = "devMinor", skip_serializing_if = "is_zero")]
    minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(rename = "endOffset", skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(rename = "chunkSize", skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(rename = "chunkOffset", skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(rename = "chunkDigest", skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
    #[serde(rename = "chunkType", skip_serializing_if = "str::is_empty")]
    chunk_type: &'static str,
}

/// Where the pieces lie: offsets of members, and where the last one ends.
pub(crate) struct Places<'p> {
    pub(crate) members: &'p [Placed],
    pub(crate) end: u64,
}

impl Places<'_> {
    fn offset(&self, member: usize) -> u64 {
        self.members.get(member).map_or(self.end, |placed| placed.offset)
    }
}

/// What the annotations say of a blob.
pub(crate) struct Positions {
    /// Digest of the compressed table of contents.
    pub(crate) checksum: Digest,
    /// `offset:compressed:uncompressed:1`.
    pub(crate) toc: String,
    /// `offset:compressed:uncompressed`, if there is a tar-split.
    pub(crate) tar_split: Option<String>,
}

/// The JSON of a layer's table of contents.
///
/// # Errors
/// [`BuildError::Entry`] for what JSON cannot hold.
pub(crate) fn json(
    plan: &Plan<'_>,
    places: &Places<'_>,
    tar_split_digest: Option<Digest>,
) -> Result<Vec<u8>, BuildError> {
    let mut toc = Toc { version: 1, entries: Vec::with_capacity(plan.entries.len()), tar_split_digest };
    for planned in &plan.entries {
        rows(planned, places, &mut toc.entries)?;
    }
    Ok(serde_json::to_vec(&toc).expect("strings and numbers, into memory"))
}

fn rows<'a>(
    planned: &'a Planned<'a>,
    places: &Places<'_>,
    rows: &mut Vec<Row<'a>>,
) -> Result<(), BuildError> {
    let item = planned.item.expect("this dialect has no landmarks");
    let (entry, extra) = (&item.entry, &item.extra);
    let mut first = Row {
        r#type: kind(&entry.kind),
        name: text(entry, &entry.name)?,
        link_name: text(entry, link(&entry.kind).unwrap_or_default())?,
        mode: extra.mode,
        size: entry.size,
        uid: entry.uid,
        gid: entry.gid,
        modtime: Some(time(entry, entry.mtime)?),
        accesstime: extra.atime.map(|atime| time(entry, atime)).transpose()?,
        changetime: extra.ctime.map(|ctime| time(entry, ctime)).transpose()?,
        major: extra.major,
        minor: extra.minor,
        xattrs: xattrs(entry)?,
        digest: item.digest,
        ..Row::default()
    };
    if let (Some(head), Some(last)) = (planned.pieces.first(), planned.pieces.last()) {
        first.offset = places.offset(head.member);
        first.end_offset =
            places.offset(last.member + usize::from(!last.is_stored_nowhere(item.is_sparse())));
    }
    let name = first.name;
    rows.push(first);
    if planned.pieces.len() < 2 && !item.is_sparse() {
        return Ok(());
    }
    for (number, piece) in planned.pieces.iter().enumerate() {
        if number > 0 {
            rows.push(Row { r#type: "chunk", name, ..Row::default() });
        }
        let row = rows.last_mut().expect("just pushed");
        let nowhere = piece.is_stored_nowhere(item.is_sparse());
        row.offset = places.offset(piece.member);
        (row.chunk_size, row.chunk_offset) = (piece.length, piece.file_offset);
        row.chunk_digest = if nowhere { None } else { places.members[piece.member].piece };
        row.chunk_type = if piece.zeros { "zeros" } else { "" };
    }
    Ok(())
}

/// The end of a blob in containers' dialect: table of contents, tar-split and footer, each in a skippable frame.
pub(crate) fn finish<W: std::io::Write>(
    output: &mut Output<W>,
    codec: Codec,
    json: &[u8],
    tar_split: Option<&CodedTarSplit>,
) -> Result<Positions, BuildError> {
    let coded = codec.compress(json).map_err(BuildError::Sink)?;
    let offset = output.offset() + SKIPPABLE_HEADER_BYTES;
    output.raw(&skippable(&coded)?)?;
    let mut footer = vec![offset, coded.len() as u64, json.len() as u64, 1];
    let mut split = None;
    if let Some(CodedTarSplit { coded, bytes }) = tar_split {
        let offset = output.offset() + SKIPPABLE_HEADER_BYTES;
        output.raw(&skippable(coded)?)?;
        footer.extend([offset, coded.len() as u64, *bytes]);
        split = Some(format!("{offset}:{}:{bytes}", coded.len()));
    }
    footer.resize(7, 0);
    let mut footer: Vec<u8> = footer.iter().flat_map(|number| number.to_le_bytes()).collect();
    footer.extend_from_slice(b"GNUlInUx");
    output.raw(&skippable(&footer)?)?;
    let toc = format!("{offset}:{}:{}:1", coded.len(), json.len());
    Ok(Positions { checksum: Digest::of(&coded), toc, tar_split: split })
}

/// A compressed tar-split and its length before.
pub(crate) struct CodedTarSplit {
    pub(crate) coded: Vec<u8>,
    pub(crate) bytes: u64,
}
