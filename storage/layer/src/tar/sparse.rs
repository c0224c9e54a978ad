//! Maps of sparse files: where the data lie in the file. Everything between is holes.

use super::TarError;
use super::header::{BLOCK, Header, number};
use super::pax::SparseRecords;

/// One piece of data: its offset in the file and its length, in bytes.
pub(super) type Extent = (u64, u64);

/// Checks that pieces rise, do not overlap, end within `size` and are as long together as the `data` stored.
pub(super) fn check(extents: &[Extent], size: u64, data: u64, offset: u64) -> Result<(), TarError> {
    let bad = |reason| Err(TarError::Sparse { offset, reason });
    let (mut end, mut stored) = (0u64, 0u64);
    for &(start, length) in extents {
        let Some(next) = start.checked_add(length) else { return bad("a piece ends beyond 2^64") };
        if start < end {
            return bad("pieces overlap or are out of order");
        }
        if next > size {
            return bad("a piece lies beyond the end of the file");
        }
        (end, stored) = (next, stored.saturating_add(length));
    }
    if stored != data {
        return bad("the pieces are not as long together as the data stored");
    }
    Ok(())
}

/// Takes the pairs of one old GNU header or extension block; `false` once an unused pair ended the list.
pub(super) fn take_pairs(raw: &[u8], extents: &mut Vec<Extent>, offset: u64) -> Result<bool, TarError> {
    for pair in raw.chunks_exact(24) {
        if pair[0] == 0 {
            return Ok(false);
        }
        let read = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        let bad = TarError::Sparse { offset, reason: "a piece is not a number" };
        let (Some(start), Some(length)) = (read(&pair[..12]), read(&pair[12..])) else { return Err(bad) };
        extents.push((start, length));
    }
    Ok(true)
}

/// Of an old GNU sparse header: whether extension blocks follow, and the length of the file.
pub(super) fn old_gnu(header: &Header) -> Result<(bool, u64), TarError> {
    let raw: &[u8; BLOCK] = header.raw();
    let size = number(&raw[483..495]).and_then(|size| u64::try_from(size).ok());
    let bad = TarError::Sparse { offset: header.offset, reason: "the length of the file is not a number" };
    Ok((raw[482] != 0, size.ok_or(bad)?))
}

/// Which PAX form the records are of, if any.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not sparse.
    None,
    /// Map in the records (0.0, 0.1).
    InRecords(Vec<Extent>),
    /// Map at the start of the data (1.0).
    InData,
}

/// Reads which form the records are of.
pub(super) fn form(records: &SparseRecords, limit: usize, offset: u64) -> Result<Form, TarError> {
    let bad = |reason| Err(TarError::Sparse { offset, reason });
    if !records.any() {
        return Ok(Form::None);
    }
    match (records.major, records.minor) {
        (Some(1), Some(0)) => return Ok(Form::InData),
        (Some(0), Some(0 | 1)) | (None, None) => {}
        _ => return bad("its version is not 0.0, 0.1 or 1.0"),
    }
    let flat = match (&records.map, records.pieces.as_slice()) {
        (Some(_), [_, ..]) => return bad("it has two maps"),
        (Some(map), []) => map.as_slice(),
        (None, pieces) => pieces,
    };
    if flat.len() % 2 != 0 || records.count.is_some_and(|count| count != flat.len() as u64 / 2) {
        return bad("the number of pieces is not the one announced");
    }
    if flat.len() / 2 > limit {
        return bad("it has more pieces than the limit");
    }
    Ok(Form::InRecords(flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
}
