//! Where dialect C cuts a file: at holes, and where a rolling sum says so.
//!
//! The rule of containers/storage (`pkg/chunked/compressor`), so that the same content in images of both makers has the
//! same chunks and is fetched once: bup's rolling sum over the last 64 bytes, a cut after every byte at which the low 16 bits
//! of its second half are all ones (64 KiB on average), and every run of at least 1,024 zeros a chunk of its own.

/// How a cut piece is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its length in bytes.
    pub(crate) length: u64,
    /// It is all zeros.
    pub(crate) zeros: bool,
}

/// Bytes the sum looks back.
const WINDOW: usize = 64;
/// What bup adds to each byte, so that zeros count.
const OFFSET: u32 = 31;
/// Low bits that make a cut when all are ones.
const MASK: u32 = (1 << 16) - 1;
/// Zeros that make a hole.
const HOLE_BYTES_MIN: u64 = 1 << 10;

/// Longest piece, in bytes: 16 MiB. The rule alone has no limit: a file of one byte repeated, or a hole, is one piece of any
/// length, which a reader would have to hold. No file that is not degenerate has pieces of this length.
const PIECE_BYTES_MAX: u64 = 16 << 20;

/// Cuts one content as it passes.
pub(crate) struct Cutter {
    first: u32,
    second: u32,
    window: [u8; WINDOW],
    at: usize,
    /// Bytes of the chunk under way.
    length: u64,
    /// Zeros met at its end that may become a hole.
    zeros: u64,
    cuts: Vec<Cut>,
}

impl Default for Cutter {
    fn default() -> Self {
        let window = u32::try_from(WINDOW).expect("64");
        Self {
            first: window * OFFSET,
            second: window * (window - 1) * OFFSET,
            window: [0; WINDOW],
            at: 0,
            length: 0,
            zeros: 0,
            cuts: Vec::new(),
        }
    }
}

impl Cutter {
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == 0 {
                self.zeros += 1;
                continue;
            }
            self.end_of_zeros();
            self.byte(byte);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Cut> {
        self.end_of_zeros();
        self.cut(false);
        self.cuts
    }

    /// Zeros are over: a hole, or bytes like others.
    fn end_of_zeros(&mut self) {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros < HOLE_BYTES_MIN {
            for _ in 0..zeros {
                self.byte(0);
            }
            return;
        }
        self.cut(false);
        // The sum sees them too. After a whole window of zeros only the second half goes on, by the same amount each.
        for _ in 0..zeros {
            self.roll(0);
        }
        let mut left = zeros;
        while left > 0 {
            self.length = left.min(PIECE_BYTES_MAX);
            left -= self.length;
            self.cut(true);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.length += 1;
        self.roll(byte);
        if self.second & MASK == MASK || self.length == PIECE_BYTES_MAX {
            self.cut(false);
        }
    }

    fn cut(&mut self, zeros: bool) {
        let length = std::mem::take(&mut self.length);
        if length > 0 {
            self.cuts.push(Cut { length, zeros });
        }
    }

    fn roll(&mut self, byte: u8) {
        let out = u32::from(std::mem::replace(&mut self.window[self.at], byte));
        self.at = (self.at + 1) % WINDOW;
        self.first = self.first.wrapping_add(u32::from(byte)).wrapping_sub(out);
        let fall = u32::try_from(WINDOW).expect("64").wrapping_mul(out + OFFSET);
        self.second = self.second.wrapping_add(self.first).wrapping_sub(fall);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(bytes: &[u8]) -> Vec<Cut> {
        let mut cutter = Cutter::default();
        for piece in bytes.chunks(777) {
            cutter.data(piece);
        }
        cutter.finish()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 56) as u8).max(1)
        };
        (0..bytes).map(next).collect()
    }

    #[test]
    fn pieces_cover_the_content_and_are_some_64_kib() {
        let content = noise(4 << 20);
        let cuts = cuts(&content);
        assert_eq!(cuts.iter().map(|cut| cut.length).sum::<u64>(), 4 << 20);
        assert!((20..200).contains(&cuts.len()), "{}", cuts.len());
    }

    #[test]
    fn a_byte_put_in_front_changes_only_the_first_pieces() {
        let content = noise(2 << 20);
        let shifted = [&b"x"[..], &content].concat();
        let ends = |cuts: Vec<Cut>, by: u64| -> Vec<u64> {
            cuts.iter()
                .scan(0, |end, cut| {
                    *end += cut.length;
                    Some(*end - by)
                })
                .collect()
        };
        let (before, after) = (ends(cuts(&content), 0), ends(cuts(&shifted), 1));
        let same = before.iter().filter(|end| after.contains(end)).count();
        assert!(same + 1 >= before.len(), "{same} of {}", before.len());
    }

    #[test]
    fn long_runs_of_zeros_are_pieces_of_their_own_and_short_ones_are_not() {
        let content = [&noise(100)[..], &[0; 5000], b"middle", &[0; 1023], b"end", &[0; 1024]].concat();
        let found = cuts(&content);
        let expected = [(100, false), (5000, true), (6 + 1023 + 3, false), (1024, true)];
        assert_eq!(found, expected.map(|(length, zeros)| Cut { length, zeros }));
    }
}
