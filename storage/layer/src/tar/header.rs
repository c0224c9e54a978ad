//! The 512-byte block: fields, numbers, checksum.

use super::TarError;

/// Bytes of a tar block.
pub(super) const BLOCK: usize = 512;

/// Dialect of a header, by its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// No magic: before POSIX.
    V7,
    /// `ustar\0`: POSIX, with PAX records perhaps.
    Ustar,
    /// `ustar\0` and `tar\0` at the end: Schilling's star.
    Star,
    /// `ustar  \0`.
    Gnu,
}

/// A header block whose checksum is right.
#[derive(Clone)]
pub(super) struct Header {
    raw: Box<[u8; BLOCK]>,
    /// Where it starts in the archive.
    pub(super) offset: u64,
    pub(super) dialect: Dialect,
}

impl Header {
    /// Reads a block that is not all zeros.
    pub(super) fn new(raw: &[u8; BLOCK], offset: u64) -> Result<Self, TarError> {
        let wanted = octal(&raw[148..156]).ok_or(TarError::Checksum { offset })?;
        let field = 148..156;
        let sums = raw.iter().enumerate().fold((0u64, 0i64), |(unsigned, signed), (at, &byte)| {
            let byte = if field.contains(&at) { b' ' } else { byte };
            (unsigned + u64::from(byte), signed + i64::from(byte.cast_signed()))
        });
        // Some old writers summed signed bytes; readers accept both.
        if wanted != sums.0 && i64::try_from(wanted) != Ok(sums.1) {
            return Err(TarError::Checksum { offset });
        }
        let dialect = match &raw[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if &magic[..6] == b"ustar\0" && &raw[508..512] == b"tar\0" => Dialect::Star,
            magic if &magic[..6] == b"ustar\0" => Dialect::Ustar,
            _ => Dialect::V7,
        };
        Ok(Self { raw: Box::new(*raw), offset, dialect })
    }

    pub(super) fn kind(&self) -> u8 {
        self.raw[156]
    }

    /// The 512 bytes.
    pub(super) fn raw(&self) -> &[u8; BLOCK] {
        &self.raw
    }

    /// Name, with the prefix of its dialect.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.raw[..100]);
        let prefix = match self.dialect {
            Dialect::Ustar => text(&self.raw[345..500]),
            Dialect::Star => text(&self.raw[345..476]),
            Dialect::Gnu if self.gnu_times_are_a_prefix() => text(&self.raw[345..500]),
            Dialect::Gnu | Dialect::V7 => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Go before 1.8 wrote long names into the prefix of headers with GNU's magic, where GNU keeps times; images of
    /// that age exist. As Go's reader: it is a prefix if it cannot be times and is ASCII.
    fn gnu_times_are_a_prefix(&self) -> bool {
        let times = [&self.raw[345..357], &self.raw[357..369]];
        let broken = times.iter().any(|field| field[0] != 0 && number(field).is_none());
        broken && text(&self.raw[345..500]).is_ascii()
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.raw[157..257]).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.unsigned(124..136, "size")
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        // The upper bits of some old archives repeat the type.
        let mode = self.signed(100..108, "mode")?;
        Ok(u32::try_from(mode & 0o7777).expect("twelve bits fit"))
    }

    pub(super) fn uid(&self) -> Result<i64, TarError> {
        self.signed(108..116, "owner")
    }

    pub(super) fn gid(&self) -> Result<i64, TarError> {
        self.signed(116..124, "group")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.signed(136..148, "time")
    }

    /// Major and minor number of a device; old archives have none.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        if self.dialect == Dialect::V7 {
            return Ok((0, 0));
        }
        let range = |field: &'static str| TarError::Number { offset: self.offset, field };
        let major =
            u32::try_from(self.signed(329..337, "device major")?).map_err(|_| range("device major"))?;
        let minor =
            u32::try_from(self.signed(337..345, "device minor")?).map_err(|_| range("device minor"))?;
        Ok((major, minor))
    }

    /// Reads every number once: a header with a broken one is broken whatever its type, as Go has it.
    pub(super) fn check_numbers(&self) -> Result<(), TarError> {
        self.mode()?;
        self.uid()?;
        self.gid()?;
        self.size()?;
        self.mtime()?;
        self.device().map(drop)
    }

    fn signed(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<i64, TarError> {
        number(&self.raw[field]).ok_or(TarError::Number { offset: self.offset, field: name })
    }

    fn unsigned(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<u64, TarError> {
        let value = self.signed(field, name)?;
        u64::try_from(value).map_err(|_| TarError::Number { offset: self.offset, field: name })
    }
}

/// Bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number field: octal digits, or base 256 in two's complement when the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        return octal(field).and_then(|value| i64::try_from(value).ok());
    }
    // The sign is the second bit; the first only marks the form.
    let negative = first & 0x40 != 0;
    let mut value = i128::from(if negative { i64::from(first) - 256 } else { i64::from(first & 0x7f) });
    for &byte in rest {
        value = (value << 8) | i128::from(byte);
        // Eleven bytes never overflow 128 bits; what leaves 64 comes back only if it was a run of sign bits.
    }
    i64::try_from(value).ok()
}

/// Octal digits between spaces and NULs; nothing at all is zero.
pub(super) fn octal(field: &[u8]) -> Option<u64> {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !padding(byte)).map_or(start, |last| last + 1);
    text(&field[start..end]).iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_octal_or_as_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\0\x07"), Some(7));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0"), Some(i64::MIN));
        assert_eq!(number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
    }

    #[test]
    fn vuln_u29_numbers_out_of_range_or_malformed_are_none() {
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None, "2^63");
        assert_eq!(number(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b"\xc0\0\0\0\0\0\0\0\0\0\0\0"), None);
        for field in [&b"0000648\0"[..], b"-644\0\0\0\0", b"+644\0\0\0\0", b"64 4\0\0\0\0", b"0x644\0\0\0"] {
            assert_eq!(number(field), None, "{}", field.escape_ascii());
        }
    }
}
