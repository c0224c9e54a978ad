//! The table of contents of stargz-snapshotter: eStargz, and its dialect of zstd:chunked.
//!
//! Formats: `estargz/types.go`, `estargz/gzip.go` and `estargz/zstdchunked` of stargz-snapshotter; `docs/estargz.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use storage_layer::tar::{Entry, EntryKind};
use storage_model::Digest;
use storage_sys::tree::{EntryPath, Timestamp};

use super::{is_zero, kind, link, skippable, text, time, xattrs};
use crate::BuildError;
use crate::encode::{Codec, Output, Placed};
use crate::order::TOC_NAME;
use crate::plan::{LANDMARK_BYTE, Plan, Planned, plain_head};

/// Zeros at the end of a tar: two blocks.
const TAR_END_BYTES: usize = 1024;

#[derive(Serialize)]
struct Toc<'a> {
    version: u32,
    entries: Vec<Row<'a>>,
}

/// One entry, or one further piece of a file.
#[derive(Serialize, Default)]
struct Row<'a> {
    name: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(rename = "linkName", skip_serializing_if = "Option::is_none")]
    link_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u32,
    #[serde(rename = "userName", skip_serializing_if = "str::is_empty")]
    user_name: &'a str,
    #[serde(rename = "groupName", skip_serializing_if = "str::is_empty")]
    group_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(rename = "devMajor", skip_serializing_if = "is_zero")]
    major: u32,
    #[serde(rename = "devMinor", skip_serializing_if = "is_zero")]
    minor: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(rename = "chunkOffset", skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(rename = "chunkSize", skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(rename = "chunkDigest", skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

/// The JSON of a layer's table of contents, indented as stargz's tools do.
///
/// # Errors
/// [`BuildError::Entry`] for what JSON cannot hold.
pub(crate) fn json(plan: &Plan<'_>, placed: &[Placed]) -> Result<Vec<u8>, BuildError> {
    let mut toc = Toc { version: 1, entries: Vec::with_capacity(plan.entries.len()) };
    for planned in &plan.entries {
        let first = first_row(planned)?;
        let name = first.name;
        toc.entries.push(first);
        for (number, piece) in planned.pieces.iter().enumerate() {
            if number > 0 {
                toc.entries.push(Row { name, r#type: "chunk", ..Row::default() });
            }
            let row = toc.entries.last_mut().expect("just pushed");
            let Placed { offset, piece: digest } = placed[piece.member];
            (row.offset, row.chunk_offset, row.chunk_digest) = (offset, piece.file_offset, digest);
            if number + 1 < planned.pieces.len() {
                // The last piece of a file goes to its end.
                row.chunk_size = piece.length;
            }
        }
    }
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"\t"));
    toc.serialize(&mut serializer).expect("strings and numbers, into memory");
    Ok(bytes)
}

fn first_row<'a>(planned: &'a Planned<'a>) -> Result<Row<'a>, BuildError> {
    if let Some(name) = planned.landmark {
        let modtime = Some("1970-01-01T00:00:00Z".to_owned());
        let digest = Some(Digest::of(&[LANDMARK_BYTE]));
        return Ok(Row { name, r#type: "reg", size: 1, mode: 0o444, modtime, digest, ..Row::default() });
    }
    let item = planned.item.expect("an entry is a landmark or an item");
    let entry = &item.entry;
    let (major, minor) = match entry.kind {
        EntryKind::Char { major, minor } | EntryKind::Block { major, minor } => (major, minor),
        _ => (0, 0),
    };
    Ok(Row {
        name: text(entry, &entry.name)?,
        r#type: kind(&entry.kind),
        size: entry.size,
        modtime: Some(time(entry, entry.mtime)?),
        link_name: target(entry)?,
        mode: i64::from(entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        user_name: &item.extra.user,
        group_name: &item.extra.group,
        major,
        minor,
        xattrs: xattrs(entry)?,
        digest: item.digest,
        ..Row::default()
    })
}

/// Where a link leads: for a hard link the clean path of its target, which is how readers look it up.
fn target(entry: &Entry) -> Result<Option<Cow<'_, str>>, BuildError> {
    let Some(target) = link(&entry.kind) else { return Ok(None) };
    let target = text(entry, target)?;
    let clean = match entry.kind {
        EntryKind::HardLink(_) => EntryPath::parse_confined(target.as_bytes()).ok(),
        _ => None,
    };
    let clean = clean.map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned());
    Ok(Some(clean.map_or(Cow::Borrowed(target), Cow::Owned)))
}

/// The end of an eStargz blob: the table of contents as the tar's last entry, the end of the tar, the footer.
pub(crate) fn finish_gzip<W: std::io::Write>(output: &mut Output<W>, json: &[u8]) -> Result<(), BuildError> {
    let toc_offset = output.offset();
    let entry = Entry {
        name: TOC_NAME.as_bytes().to_vec(),
        kind: EntryKind::File,
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        atime: None,
        xattrs: Vec::new(),
        size: json.len() as u64,
    };
    let mut tar = plain_head(&entry)?;
    tar.extend_from_slice(json);
    tar.resize(tar.len().next_multiple_of(512) + TAR_END_BYTES, 0);
    output.member(&tar)?;
    output.raw(&gzip_footer(toc_offset))
}

/// The last 51 bytes of an eStargz blob: an empty gzip member whose extra field says where the table of contents is.
pub(crate) fn gzip_footer(toc_offset: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    footer.extend_from_slice(format!("{toc_offset:016x}STARGZ").as_bytes());
    footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    footer.extend_from_slice(&[0; 8]);
    footer
}

/// Where dialect S keeps its table of contents.
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) coded: Vec<u8>,
}

/// The end of a blob in stargz's dialect of zstd:chunked: the end of the tar, the table of contents and the footer.
pub(crate) fn finish_zstd<W: std::io::Write>(
    output: &mut Output<W>,
    codec: Codec,
    json: &[u8],
) -> Result<Position, BuildError> {
    output.member(&[0; TAR_END_BYTES])?;
    let coded = codec.compress(json).map_err(BuildError::Sink)?;
    let offset = output.offset() + super::SKIPPABLE_HEADER_BYTES;
    output.raw(&skippable(&coded)?)?;
    let mut footer = Vec::with_capacity(40);
    for number in [offset, coded.len() as u64, json.len() as u64, 1] {
        footer.extend_from_slice(&number.to_le_bytes());
    }
    footer.extend_from_slice(b"GnUlInUx");
    output.raw(&skippable(&footer)?)?;
    Ok(Position { offset, coded })
}
