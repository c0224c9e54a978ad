//! From the coded bytes of a group to the bytes of its chunks: one pure function, bounded before it begins.
//!
//! [`decode`] gives the first `output_bytes` bytes of what a group decodes to, never one more, so that no group is a bomb:
//! who asks knows from the index how far the chunks of the group reach. It decides nothing about trust: digests of chunks
//! or groups are the caller's to check, and until then the bytes are nobody's.
//!
//! | coding | takes | and ignores |
//! |---|---|---|
//! | `Plain` | as many bytes | the rest |
//! | `Gzip` | whole members, as many as needed | what follows the last byte wanted, its trailer included |
//! | `Deflate` | raw deflate from a checkpoint, then members if the stream ends | the same |
//! | `Zstd` | frames and skippable frames; windows up to 128 MiB | the same |
//! | `Zeros` | nothing | everything |

use std::cell::RefCell;

use lazy_index::Coding;
use storage_sys::inflate::{Inflater, Stop, Wrapping};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

/// Most bytes that one group may decode to: 1 GiB, what [`lazy_index::Limits`] lets through by default.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// Largest window of a zstd frame, as a power of two: 128 MiB, as for whole layers (`storage_layer::Limits`).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of a gzip trailer: CRC-32 and length (RFC 1952).
const GZIP_TRAILER_BYTES: usize = 8;

/// Where in a deflate stream decoding begins: what a [`lazy_index::Checkpoint`] says of it.
#[derive(Debug, Clone, Copy)]
pub struct Resume<'a> {
    /// How many bits (0 to 7) of the first coded byte belong to what comes. With 0, coded bytes begin at the checkpoint's
    /// `input_offset`; otherwise one byte before.
    pub bits: u8,
    /// What came out before, at most 32 KiB of it.
    pub window: &'a [u8],
}

/// Why coded bytes cannot be decoded. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More output than any group may have: the index is at fault.
    #[error("a piece of a layer would decode to {output_bytes} bytes: the limit is {limit_bytes}")]
    TooLarge {
        /// What was asked for.
        output_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The coded bytes end before the output is complete: the range or the index is wrong.
    #[error("a piece of a layer ends after {actual_bytes} of {expected_bytes} bytes")]
    Short {
        /// Bytes that were to come out.
        expected_bytes: u64,
        /// Bytes that did.
        actual_bytes: u64,
    },
    /// The coded bytes are not of their format: wrong bytes arrived, or the index is wrong.
    #[error("a piece of a layer is no valid {format}")]
    Damaged {
        /// The format.
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: std::io::Error,
    },
    /// A piece of a deflate stream without the checkpoint it begins at.
    #[error("a piece of a deflate stream cannot be decoded without its checkpoint")]
    NoCheckpoint,
}

/// The first `output_bytes` bytes of what `coded`, the bytes of one group, decodes to. `resume` is needed for
/// [`Coding::Deflate`] alone.
///
/// # Errors
/// [`DecodeError`]: too much asked for, damaged, or too short. Any bytes are safe to give; time is linear in the bytes
/// given and asked for.
pub fn decode(
    coding: Coding,
    coded: &[u8],
    resume: Option<Resume<'_>>,
    output_bytes: u64,
) -> Result<Vec<u8>, DecodeError> {
    let expected = match usize::try_from(output_bytes) {
        Ok(expected) if output_bytes <= OUTPUT_BYTES_MAX => expected,
        _ => return Err(DecodeError::TooLarge { output_bytes, limit_bytes: OUTPUT_BYTES_MAX }),
    };
    if expected == 0 {
        return Ok(Vec::new());
    }
    match coding {
        Coding::Plain => match coded.get(..expected) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(short(expected, coded.len())),
        },
        Coding::Zeros => Ok(vec![0; expected]),
        Coding::Gzip => members(Inflater::new(Wrapping::Gzip), Wrapping::Gzip, coded, expected),
        Coding::Deflate { .. } => {
            let Resume { bits, window } = resume.ok_or(DecodeError::NoCheckpoint)?;
            if bits == 0 {
                return members(Inflater::resume(0, 0, window), Wrapping::Raw, coded, expected);
            }
            let (&first, rest) = coded.split_first().ok_or(short(expected, 0))?;
            members(Inflater::resume(bits, first, window), Wrapping::Raw, rest, expected)
        }
        Coding::Zstd => frames(coded, expected),
    }
}

fn short(expected: usize, actual: usize) -> DecodeError {
    DecodeError::Short { expected_bytes: expected as u64, actual_bytes: actual as u64 }
}

/// Decodes from the present stream through as many gzip members as it takes. Memory grows with what really comes out.
fn members(
    mut inflater: Inflater,
    mut wrapping: Wrapping,
    mut coded: &[u8],
    expected: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut output = vec![0; expected.min(first_allocation(coded))];
    let mut filled = 0;
    loop {
        let step = inflater.step(coded, &mut output[filled..], Stop::AtEnd).map_err(|damaged| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, damaged);
            DecodeError::Damaged { format: "gzip", source }
        })?;
        coded = &coded[step.consumed..];
        filled += step.produced;
        if filled == expected {
            return Ok(output);
        }
        if step.ended {
            if wrapping == Wrapping::Raw {
                // The trailer of a member that was entered in the middle: its checksum cannot be checked.
                coded = coded.get(GZIP_TRAILER_BYTES..).unwrap_or_default();
                wrapping = Wrapping::Gzip;
            }
            inflater.restart(Wrapping::Gzip);
        }
        if filled == output.len() {
            output.resize(expected.min(output.len().saturating_mul(2)), 0);
        } else if coded.is_empty() || (step.consumed == 0 && step.produced == 0 && !step.ended) {
            return Err(short(expected, filled));
        }
    }
}

/// Bytes to set aside before anything has come out: what text usually becomes, and never little. A false promise of an index
/// costs no memory then.
fn first_allocation(coded: &[u8]) -> usize {
    coded.len().saturating_mul(8).max(64 * 1024)
}

thread_local! {
    /// A decoder costs 160 KiB and its window: each reading thread keeps one.
    static ZSTD: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

fn frames(coded: &[u8], expected: usize) -> Result<Vec<u8>, DecodeError> {
    let damaged = |source| DecodeError::Damaged { format: "zstd", source };
    ZSTD.with_borrow_mut(|kept| {
        let mut decoder = match kept.take() {
            Some(decoder) => decoder,
            None => {
                let mut decoder = Decoder::new().map_err(damaged)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(damaged)?;
                decoder
            }
        };
        decoder.reinit().map_err(damaged)?;
        let output = run(&mut decoder, coded, expected)?;
        // One that failed is not used again.
        *kept = Some(decoder);
        Ok(output)
    })
}

fn run(decoder: &mut Decoder<'_>, coded: &[u8], expected: usize) -> Result<Vec<u8>, DecodeError> {
    let mut output = vec![0; expected.min(first_allocation(coded))];
    let mut filled = 0;
    let mut input = InBuffer::around(coded);
    loop {
        let before = (input.pos(), filled);
        let mut into = OutBuffer::around(&mut output[filled..]);
        decoder
            .run(&mut input, &mut into)
            .map_err(|source| DecodeError::Damaged { format: "zstd", source })?;
        filled += into.pos();
        if filled == expected {
            return Ok(output);
        }
        if filled == output.len() {
            output.resize(expected.min(output.len().saturating_mul(2)), 0);
        } else if input.pos() == coded.len() && before == (input.pos(), filled) {
            return Err(short(expected, filled));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 5] =
        [Coding::Plain, Coding::Gzip, Coding::Zstd, Coding::Deflate { checkpoint: 0 }, Coding::Zeros];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).unwrap()
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"the quick brown fox "[(at * at / 7) % 20]).collect()
    }

    #[test]
    fn streams_of_several_members_or_frames_are_one() {
        let plain = text(300_000);
        let (first, rest) = plain.split_at(100_000);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let zstd_blob = [zstandard(first), skippable.to_vec(), zstandard(rest)].concat();
        let gzip_blob = [gzip(first), gzip(b""), gzip(rest)].concat();
        for wanted in [1, 99_999, 100_000, 100_001, 300_000] {
            let expected = &plain[..wanted];
            assert_eq!(decode(Coding::Gzip, &gzip_blob, None, wanted as u64).unwrap(), expected);
            assert_eq!(decode(Coding::Zstd, &zstd_blob, None, wanted as u64).unwrap(), expected);
            assert_eq!(decode(Coding::Plain, &plain, None, wanted as u64).unwrap(), expected);
        }
        for (coding, blob) in
            [(Coding::Gzip, &gzip_blob), (Coding::Zstd, &zstd_blob), (Coding::Plain, &plain)]
        {
            let refused = decode(coding, blob, None, 300_001).unwrap_err();
            assert!(matches!(refused, DecodeError::Short { actual_bytes: 300_000, .. }), "{refused}");
        }
    }

    #[test]
    fn a_deflate_stream_entered_in_the_middle_goes_on_through_the_next_member() {
        let plain = text(300_000);
        let (first, rest) = plain.split_at(200_000);
        let blob = [gzip(first), gzip(rest)].concat();
        // The header of a member without name or time is 10 bytes.
        let resume = Some(Resume { bits: 0, window: &[] });
        let output = decode(Coding::Deflate { checkpoint: 0 }, &blob[10..], resume, 300_000).unwrap();
        assert!(output == plain);
        let without = decode(Coding::Deflate { checkpoint: 0 }, &blob[10..], None, 300_000).unwrap_err();
        assert!(matches!(without, DecodeError::NoCheckpoint));
    }

    #[test]
    fn l4_a_bomb_gives_no_more_than_was_asked_for_and_a_false_promise_costs_nothing() {
        let bomb = gzip(&vec![0; 32 << 20]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(decode(Coding::Gzip, &bomb, None, 4096).unwrap().len(), 4096);
        let bomb = zstandard(&vec![0; 32 << 20]);
        assert_eq!(decode(Coding::Zstd, &bomb, None, 4096).unwrap().len(), 4096);
        for coding in ALL {
            let refused = decode(coding, &bomb, None, u64::MAX).unwrap_err();
            assert!(matches!(refused, DecodeError::TooLarge { .. }));
        }
        let refused = decode(Coding::Gzip, &gzip(b"short"), None, OUTPUT_BYTES_MAX).unwrap_err();
        assert!(matches!(refused, DecodeError::Short { actual_bytes: 5, .. }), "{refused}");
    }

    #[test]
    fn a_decoder_that_met_damage_is_not_used_for_the_next_piece() {
        let plain = text(100_000);
        let blob = zstandard(&plain);
        let mut damaged = blob.clone();
        damaged[blob.len() / 2] ^= 0xff;
        damaged.truncate(blob.len() - 10);
        for _ in 0..3 {
            assert_ne!(decode(Coding::Zstd, &damaged, None, 100_000).ok().as_deref(), Some(&plain[..]));
            assert!(decode(Coding::Zstd, &blob, None, 100_000).unwrap() == plain);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_give_another_length(
            coded in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..400,
            bits in 0u8..20,
            output_bytes in 0u64..100_000,
        ) {
            let valid = [gzip(&coded), zstandard(&coded)];
            for bytes in [&coded, &valid[0], &valid[1]] {
                let bytes = &bytes[..bytes.len().min(cut)];
                for coding in ALL {
                    let resume = Some(Resume { bits, window: &coded });
                    if let Ok(output) = decode(coding, bytes, resume, output_bytes) {
                        prop_assert_eq!(output.len() as u64, output_bytes);
                    }
                }
            }
        }
    }
}
