//! tar-split: everything of a tar that is not the contents of its files, so that the tar can be put together again.
//!
//! The format of `github.com/vbatts/tar-split` (`tar/storage`): one JSON document a line, each a segment of the tar's own
//! bytes (type 2) or a file by name, length and CRC-64 (type 1), in the order of the tar. containers/storage demands it of
//! zstd:chunked layers: it proves the diff ID of what it pulled in parts, and pushes the very layer.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use storage_layer::tar::EntryKind;

use crate::BuildError;
use crate::scan::{Item, Scanned};

/// Most bytes of one segment; longer stretches (the zeros at the end of some archives) are cut, as tar-split does.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

#[derive(Serialize)]
struct Document<'a> {
    r#type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    /// base64; null for a file without content.
    payload: Option<String>,
    position: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The tar-split of a tar; `None` if the format has none for it: paths that occur twice, sparse files.
///
/// # Errors
/// [`BuildError::Source`] if the tar cannot be read again.
pub(crate) fn tar_split(tar: &File, scanned: &Scanned) -> Result<Option<Vec<u8>>, BuildError> {
    if scanned.has_doubles || scanned.items.iter().any(Item::is_sparse) {
        return Ok(None);
    }
    let mut writer = Writer { tar, lines: Vec::new(), position: 0 };
    for item in &scanned.items {
        writer.segment(item.head.clone())?;
        writer.file(item);
        writer.segment(item.padding.clone())?;
    }
    writer.segment(scanned.tail.clone())?;
    Ok(Some(writer.lines))
}

struct Writer<'f> {
    tar: &'f File,
    lines: Vec<u8>,
    position: u64,
}

impl Writer<'_> {
    fn segment(&mut self, range: Range<u64>) -> Result<(), BuildError> {
        let mut at = range.start;
        while at < range.end {
            let take = (range.end - at).min(SEGMENT_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(take).expect("at most 1 MiB")];
            self.tar.read_exact_at(&mut bytes, at).map_err(BuildError::Source)?;
            let payload = Some(STANDARD.encode(&bytes));
            self.document(2, None, None, 0, payload);
            at += take;
        }
        Ok(())
    }

    fn file(&mut self, item: &Item) {
        let name = std::str::from_utf8(&item.entry.name);
        let raw = name.is_err().then(|| STANDARD.encode(&item.entry.name));
        let has_content = item.entry.kind == EntryKind::File && item.entry.size > 0;
        let payload = has_content.then(|| STANDARD.encode(item.crc64.to_be_bytes()));
        self.document(1, name.ok(), raw, item.entry.size, payload);
    }

    fn document(
        &mut self,
        kind: u8,
        name: Option<&str>,
        name_raw: Option<String>,
        size: u64,
        payload: Option<String>,
    ) {
        let document = Document { r#type: kind, name, name_raw, size, payload, position: self.position };
        serde_json::to_writer(&mut self.lines, &document).expect("strings and numbers, into memory");
        self.lines.push(b'\n');
        self.position += 1;
    }
}

/// CRC-64 with the polynomial of ISO 3309, as Go's `hash/crc64` computes it.
pub(crate) struct Crc64(u64);

/// The polynomial, bits reversed.
const POLYNOMIAL: u64 = 0xD800_0000_0000_0000;

/// Eight tables: one byte, and one byte that is followed by 1 to 7 others.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0u64; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        table += 1;
    }
    tables
}

impl Default for Crc64 {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc64 {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mixed = (self.0 ^ u64::from_le_bytes(*eight)).to_le_bytes();
            self.0 =
                mixed.iter().enumerate().fold(0, |sum, (at, &byte)| sum ^ TABLES[7 - at][usize::from(byte)]);
        }
        for &byte in rest {
            self.0 = TABLES[0][usize::from(self.0.to_le_bytes()[0] ^ byte)] ^ (self.0 >> 8);
        }
    }

    pub(crate) fn finish(&self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_64_is_that_of_go() {
        // The values that Go's own tests have for these (`hash/crc64`, table ISO).
        for (text, expected) in [
            ("", 0),
            ("a", 0x3420_0000_0000_0000),
            ("ab", 0x36c4_2000_0000_0000),
            ("abc", 0x3776_c420_0000_0000),
            ("abcd", 0x3367_76c4_2000_0000),
        ] {
            let mut crc = Crc64::default();
            crc.update(text.as_bytes());
            assert_eq!(crc.finish(), expected, "{text:?}");
        }
    }

    #[test]
    fn eight_bytes_at_once_are_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1001).collect();
        let (mut at_once, mut one_by_one) = (Crc64::default(), Crc64::default());
        at_once.update(&bytes);
        bytes.chunks(1).for_each(|byte| one_by_one.update(byte));
        assert_eq!(at_once.finish(), one_by_one.finish());
    }
}
