//! Reading part of a chunk and checking it on the way.
//!
//! Each block of a chunk has a checksum, so that a bit that turned on the disk is seen at whatever read, at the cost of
//! one block; and a chunk has a digest, which is compared when nothing vouches for the disk (after a power cut).
//! `pread`, never a mapping: a file that is shorter than it should be is a failed read here, and a dead process there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use storage_model::Digest;

use super::journal::BLOCK_BYTES;

/// The bytes on the disk are not those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage;

/// Fills `out` with the bytes of the chunk at `place` (offset and length in `file`) from `from` on. `sums` are those of its
/// blocks; with `digest`, the whole chunk is read and compared.
pub(super) fn read_checked(
    file: &File,
    place: (u64, u64),
    sums: &[u32],
    digest: Option<&Digest>,
    from: u64,
    out: &mut [u8],
) -> Result<(), Damage> {
    let (offset, length) = place;
    let end = from.checked_add(out.len() as u64).filter(|end| *end <= length).ok_or(Damage)?;
    if let Some(digest) = digest {
        let whole = read(file, offset, length)?;
        if Digest::of(&whole) != *digest {
            return Err(Damage);
        }
        out.copy_from_slice(&whole[from as usize..end as usize]);
        return Ok(());
    }
    let mut at = from;
    while at < end {
        let number = at / BLOCK_BYTES;
        let (start, stop) = (number * BLOCK_BYTES, ((number + 1) * BLOCK_BYTES).min(length));
        let upto = stop.min(end);
        let target = &mut out[(at - from) as usize..(upto - from) as usize];
        let expected = *sums.get(number as usize).ok_or(Damage)?;
        if at == start && upto == stop {
            file.read_exact_at(target, offset + start).map_err(|_| Damage)?;
            if crc32fast::hash(target) != expected {
                return Err(Damage);
            }
        } else {
            let block = read(file, offset + start, stop - start)?;
            if crc32fast::hash(&block) != expected {
                return Err(Damage);
            }
            target.copy_from_slice(&block[(at - start) as usize..(upto - start) as usize]);
        }
        at = upto;
    }
    Ok(())
}

fn read(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, Damage> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Damage)?];
    file.read_exact_at(&mut bytes, offset).map_err(|_| Damage)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::journal::sums;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_part_of_a_chunk_reads_as_it_was_written_and_a_turned_bit_is_seen(
            length in 1usize..200_000, from in 0usize..200_000, count in 0usize..200_000,
            turn in proptest::option::of((0usize..200_000, 0u8..8)), whole: bool,
        ) {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
            let (from, count) = (from % length, count % length);
            let count = count.min(length - from);
            let mut written = vec![0xee; 100];
            written.extend_from_slice(&bytes);
            if let Some((at, bit)) = turn {
                written[100 + at % length] ^= 1 << bit;
            }
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&written, 0).unwrap();
            let digest = Digest::of(&bytes);
            let mut out = vec![0; count];
            let place = (100, length as u64);
            let read = read_checked(&file, place, &sums(&bytes), whole.then_some(&digest), from as u64, &mut out);
            let turned = turn.map(|(at, _)| (at % length) as u64 / BLOCK_BYTES);
            let touched = from as u64 / BLOCK_BYTES..((from + count) as u64).div_ceil(BLOCK_BYTES);
            let seen = turned.is_some_and(|block| whole || (count > 0 && touched.contains(&block)));
            prop_assert_eq!(read, if seen { Err(Damage) } else { Ok(()) });
            if !seen {
                prop_assert_eq!(&out[..], &bytes[from..from + count]);
            }
        }
    }
}
