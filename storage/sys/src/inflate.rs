//! Inflate (RFC 1951) that can begin in the middle of a stream and stop between blocks: what random access into gzip needs.
//!
//! [`Inflater`] is zlib's `inflate` with three things that `flate2` does not offer: [`Inflater::resume`] continues at any
//! bit of a stream whose last 32 KiB of output are known, [`Stop::AfterBlock`] returns at every block boundary, and
//! [`Step::boundary`] says at which bit that was. The decoder is `zlib-rs` (memory-safe inside); `unsafe` is here only
//! because its interface for these is zlib's C one.
//!
//! Not here: gzip members after the first, limits, where checkpoints are put (`lazy/build`), how they are used
//! (`lazy/fetch`).

use std::ffi::c_int;

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_STREAM_END, inflate, inflateEnd, inflateInit2_, inflatePrime,
    inflateReset2, inflateSetDictionary, z_stream, zlibVersion,
};

/// Largest distance, in bytes, that inflate looks back (RFC 1951, 3.2.5); longer windows are of no use.
pub const WINDOW_BYTES_MAX: usize = 32 * 1024;

/// What surrounds the deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// Nothing: RFC 1951.
    Raw,
    /// A gzip header before it and a checked trailer after it: RFC 1952.
    Gzip,
}

/// When [`Inflater::step`] returns before input or output is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Only at the end of the stream.
    AtEnd,
    /// Also after the header, and after each block.
    AfterBlock,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes written to the output.
    pub produced: usize,
    /// The stream is over, its trailer (if it has one) taken and found right.
    pub ended: bool,
    /// The step ended where a block begins, and how many bits of the bytes consumed belong to that block
    /// (more than 7: whole bytes were taken ahead). `None` in the middle of a block, and
    /// after the last one.
    pub boundary: Option<u8>,
}

/// The stream is no deflate stream (or the window is not the one before it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the compressed data are damaged (zlib's code {code})")]
pub struct Damaged {
    /// zlib's return code.
    pub code: i32,
}

/// A decoder in the middle of a stream.
pub struct Inflater {
    /// On the heap: zlib forbids moving the stream once it is initialised.
    stream: Box<z_stream>,
}

// SAFETY: the stream's pointers lead to memory that this value alone owns: `state`, allocated by `inflateInit2_` with Rust's
// global allocator, which any thread may free. `next_in` and `next_out` are null between calls (see `step`). No call
// takes `&self`, so nothing is shared.
unsafe impl Send for Inflater {}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("total_in", &self.stream.total_in).finish_non_exhaustive()
    }
}

impl Wrapping {
    /// zlib's `windowBits`: negative is raw, 16 more is gzip.
    fn window_bits(self) -> c_int {
        match self {
            Self::Raw => -15,
            Self::Gzip => 15 + 16,
        }
    }
}

impl Inflater {
    /// A decoder at the start of a stream.
    ///
    /// # Panics
    /// If there is no memory for its state (40 KiB).
    pub fn new(wrapping: Wrapping) -> Self {
        let mut stream = Box::new(z_stream::default());
        let size = c_int::try_from(size_of::<z_stream>()).expect("a struct of some 100 bytes");
        // SAFETY: `stream` is a live, exclusively borrowed z_stream whose allocator fields are the library's defaults;
        // the version and size are those of the library we are linked with. The state it allocates is freed in `drop`.
        let code = unsafe { inflateInit2_(&raw mut *stream, wrapping.window_bits(), zlibVersion(), size) };
        assert_eq!(code, Z_OK, "no memory for an inflate state");
        Self { stream }
    }

    /// A decoder of raw deflate that continues in the middle of a stream: `bits` (0 to 7) bits of `byte`, its upper ones,
    /// come before the input, and `window` (its last 32 KiB count) came out before.
    pub fn resume(bits: u8, byte: u8, window: &[u8]) -> Self {
        let mut inflater = Self::new(Wrapping::Raw);
        let window = &window[window.len().saturating_sub(WINDOW_BYTES_MAX)..];
        let bits = bits.min(7);
        if bits > 0 {
            let value = c_int::from(byte >> (8 - bits));
            // SAFETY: the stream was initialised by `new`; fewer than 8 bits fit into the empty bit buffer.
            let code = unsafe { inflatePrime(&raw mut *inflater.stream, c_int::from(bits), value) };
            debug_assert_eq!(code, Z_OK, "fewer than 8 bits fit");
        }
        if !window.is_empty() {
            let length = u32::try_from(window.len()).expect("at most 32 KiB");
            // SAFETY: the stream is initialised; `window` is valid for `length` bytes during the call, which copies them.
            let code = unsafe { inflateSetDictionary(&raw mut *inflater.stream, window.as_ptr(), length) };
            debug_assert_eq!(code, Z_OK, "a raw stream takes any dictionary");
        }
        inflater
    }

    /// Begins another stream, forgetting the present one.
    pub fn restart(&mut self, wrapping: Wrapping) {
        // SAFETY: the stream is initialised; the call touches nothing but its own state.
        let code = unsafe { inflateReset2(&raw mut *self.stream, wrapping.window_bits()) };
        debug_assert_eq!(code, Z_OK, "both window sizes are valid");
    }

    /// Decodes from `input` into `output` until one of them is used up, or as `stop` says.
    ///
    /// No progress with room in both means that the stream is cut off: more input is needed.
    ///
    /// # Errors
    /// [`Damaged`]; what was written to `output` is then of no value, and only [`Inflater::restart`] is of use.
    pub fn step(&mut self, input: &[u8], output: &mut [u8], stop: Stop) -> Result<Step, Damaged> {
        let flush = match stop {
            Stop::AtEnd => Z_NO_FLUSH,
            Stop::AfterBlock => Z_BLOCK,
        };
        let offered_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let offered_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        let stream = &mut *self.stream;
        (stream.next_in, stream.avail_in) = (input.as_ptr(), offered_in);
        (stream.next_out, stream.avail_out) = (output.as_mut_ptr(), offered_out);
        // SAFETY: the stream is initialised and exclusively borrowed. `next_in` is valid for reading `avail_in` bytes and
        // `next_out` for writing `avail_out` bytes, for the whole call: they are the slices' own, or shorter; neither
        // pointer is null, since slices' never are. zlib writes only inside `avail_out`.
        let code = unsafe { inflate(&raw mut *stream, flush) };
        let (left_in, left_out) = (stream.avail_in, stream.avail_out);
        // No pointer to what was borrowed stays behind.
        (stream.next_in, stream.avail_in) = (std::ptr::null(), 0);
        (stream.next_out, stream.avail_out) = (std::ptr::null_mut(), 0);
        if !matches!(code, Z_OK | Z_STREAM_END | Z_BUF_ERROR) {
            return Err(Damaged { code });
        }
        let state = stream.data_type;
        // zlib.h, inflate(): 128 is "at the end of a block or of the header", 64 "in the last block", the low bits are bits unused.
        let between = state & 128 != 0 && state & 64 == 0 && code != Z_STREAM_END;
        Ok(Step {
            consumed: (offered_in - left_in) as usize,
            produced: (offered_out - left_out) as usize,
            ended: code == Z_STREAM_END,
            boundary: between.then_some(u8::try_from(state & 63).expect("below 64")),
        })
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised by `new` and is ended once, here.
        unsafe { inflateEnd(&raw mut *self.stream) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that compresses to several dynamic blocks.
    fn text() -> Vec<u8> {
        let mut state = 1u32;
        (0..400_000)
            .map(|at: u32| {
                state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
                if at.is_multiple_of(7) { (state >> 24) as u8 } else { b'a' + (state >> 29) as u8 }
            })
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Every block boundary of a gzip stream: input bytes, bits left over of the last one, output bytes.
    fn boundaries(coded: &[u8], plain: &[u8]) -> Vec<(usize, u8, usize)> {
        let mut inflater = Inflater::new(Wrapping::Gzip);
        let (mut read, mut written, mut found) = (0, 0, Vec::new());
        let mut output = vec![0; plain.len() + 1];
        loop {
            let step = inflater.step(&coded[read..], &mut output[written..], Stop::AfterBlock).unwrap();
            (read, written) = (read + step.consumed, written + step.produced);
            if let Some(bits) = step.boundary {
                found.push((read - usize::from(bits / 8), bits % 8, written));
            }
            if step.ended {
                assert_eq!(&output[..written], plain);
                return found;
            }
        }
    }

    #[test]
    fn decoding_resumes_at_every_block_with_the_window_before_it() {
        let plain = text();
        let coded = gzip(&plain);
        let found = boundaries(&coded, &plain);
        assert!(found.len() > 3, "{} blocks", found.len());
        assert!(found.iter().any(|&(_, bits, _)| bits > 0), "some block begins inside a byte");
        for (read, bits, written) in found {
            let mut inflater = Inflater::resume(bits, coded[read - 1], &plain[..written]);
            let mut output = vec![0; plain.len() - written];
            let mut done = 0;
            let mut at = read;
            while done < output.len() {
                let step = inflater.step(&coded[at..], &mut output[done..], Stop::AtEnd).unwrap();
                assert!(step.consumed + step.produced > 0);
                (at, done) = (at + step.consumed, done + step.produced);
            }
            assert!(output == plain[written..], "from {read}");
        }
    }

    #[test]
    fn damaged_data_are_an_error_and_cut_off_ones_make_no_progress() {
        let plain = text();
        let mut coded = gzip(&plain);
        let mut output = vec![0; plain.len()];
        let half = coded.len() / 2;
        let mut inflater = Inflater::new(Wrapping::Gzip);
        let first = inflater.step(&coded[..half], &mut output, Stop::AtEnd).unwrap();
        let again = inflater.step(&[], &mut output[first.produced..], Stop::AtEnd).unwrap();
        assert_eq!((again.consumed, again.produced, again.ended), (0, 0, false));
        // The checksum in the trailer is wrong.
        let end = coded.len() - 6;
        coded[end] ^= 1;
        inflater.restart(Wrapping::Gzip);
        let mut read = 0;
        let mut written = 0;
        let refused = loop {
            match inflater.step(&coded[read..], &mut output[written..], Stop::AtEnd) {
                Ok(step) => {
                    assert!(!step.ended);
                    (read, written) = (read + step.consumed, written + step.produced);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code, -3);
    }
}
