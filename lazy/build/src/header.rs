//! What Go's `archive/tar` takes from a header beyond what [`storage_layer::tar::Entry`] has: the readers of these formats
//! compare it with the table of contents (containers/storage, `ensureFileMetadataMatches`).
//!
//! The headers were read and found valid before; a field that cannot be read here counts as absent.

use storage_sys::tree::Timestamp;

/// Fields of a header that nothing else needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// The whole mode field: old archives repeat the type in its upper bits.
    pub(crate) mode: i64,
    /// Last access, if the archive knows.
    pub(crate) atime: Option<Timestamp>,
    /// Last change of the inode, if the archive knows.
    pub(crate) ctime: Option<Timestamp>,
    /// Major device number, whatever the type.
    pub(crate) major: i64,
    /// Minor device number, whatever the type.
    pub(crate) minor: i64,
    /// Name of the owner; empty if the archive does not say.
    pub(crate) user: String,
    /// Name of the group.
    pub(crate) group: String,
}

const BLOCK: usize = 512;

impl Extra {
    /// Reads all headers of one entry, extended ones included.
    pub(crate) fn read(head: &[u8]) -> Self {
        let mut at = 0;
        let mut records: Vec<(&[u8], &[u8])> = Vec::new();
        while let Some(block) = head.get(at..at + BLOCK) {
            let kind = block[156];
            if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
                return Self::of(block, &records);
            }
            let size = number(&block[124..136]).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
            let body = head.get(at + BLOCK..(at + BLOCK).saturating_add(size)).unwrap_or_default();
            if kind == b'x' {
                records.extend(pax(body));
            }
            at = (at + BLOCK).saturating_add(size.next_multiple_of(BLOCK));
        }
        Self::default()
    }

    fn of(block: &[u8], records: &[(&[u8], &[u8])]) -> Self {
        let is_ustar = block.starts_with_at(257, b"ustar\0");
        let is_gnu = block.starts_with_at(257, b"ustar  \0");
        let is_star = is_ustar && block.starts_with_at(508, b"tar\0");
        let mut this = Self { mode: number(&block[100..108]).unwrap_or(0), ..Self::default() };
        if is_ustar || is_gnu {
            this.user = name(&block[265..297]);
            this.group = name(&block[297..329]);
            this.major = number(&block[329..337]).unwrap_or(0);
            this.minor = number(&block[337..345]).unwrap_or(0);
        }
        let times = match (is_star, is_gnu) {
            (true, _) => Some((476, 488)),
            (_, true) => Some((345, 357)),
            _ => None,
        };
        if let Some((atime, ctime)) = times {
            (this.atime, this.ctime) =
                (seconds(&block[atime..atime + 12]), seconds(&block[ctime..ctime + 12]));
        }
        for (key, value) in records {
            match *key {
                b"atime" => this.atime = time(value),
                b"ctime" => this.ctime = time(value),
                b"uname" => this.user = name(value),
                b"gname" => this.group = name(value),
                _ => {}
            }
        }
        this
    }
}

trait StartsAt {
    fn starts_with_at(&self, at: usize, text: &[u8]) -> bool;
}

impl StartsAt for [u8] {
    fn starts_with_at(&self, at: usize, text: &[u8]) -> bool {
        self.get(at..).is_some_and(|rest| rest.starts_with(text))
    }
}

fn name(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// A time of GNU's or star's header; one that does not begin is absent.
fn seconds(field: &[u8]) -> Option<Timestamp> {
    if field.first().is_none_or(|&first| first == 0) {
        return None;
    }
    number(field).map(|seconds| Timestamp { seconds, nanoseconds: 0 })
}

/// Octal digits between spaces and NULs, or base 256 when the first bit is set (at most 8 bytes of it count).
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 { -1i64 } else { i64::from(first & 0x3f) };
        return Some(rest.iter().fold(start, |value, &byte| (value << 8) | i64::from(byte)));
    }
    let text: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    text.iter().try_fold(0i64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// Records of a PAX header: `length key=value\n`.
fn pax(mut body: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut records = Vec::new();
    while let Some(space) = body.iter().position(|&byte| byte == b' ') {
        let length = std::str::from_utf8(&body[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| body.get(space + 1..length)) else { break };
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        if let Some(equals) = record.iter().position(|&byte| byte == b'=') {
            records.push((&record[..equals], &record[equals + 1..]));
        }
        body = &body[length.unwrap_or(body.len())..];
    }
    records
}

/// `[-]seconds[.fraction]`, cut after nanoseconds.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timestamp { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Timestamp { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(magic: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[156] = b'0';
        block[100..108].copy_from_slice(b"0100644\0");
        block[257..257 + magic.len()].copy_from_slice(magic);
        block[265..269].copy_from_slice(b"root");
        block
    }

    #[test]
    fn the_mode_is_whole_and_names_are_those_of_dialects_that_have_them() {
        let extra = Extra::read(&block(b"ustar\0"));
        assert_eq!((extra.mode, extra.user.as_str()), (0o100_644, "root"));
        let old = Extra::read(&block(b""));
        assert_eq!((old.mode, old.user.as_str()), (0o100_644, ""));
    }

    #[test]
    fn extended_records_win_over_the_header() {
        let mut head = vec![0; 1024];
        head[156] = b'x';
        let body = b"30 atime=1700000000.123456789\n16 uname=someone\n";
        let body = &body[..];
        head[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        head[512..512 + body.len()].copy_from_slice(body);
        head.extend(block(b"ustar  \0"));
        let extra = Extra::read(&head);
        let atime = extra.atime.unwrap();
        assert_eq!((atime.seconds, atime.nanoseconds), (1_700_000_000, 123_456_789));
        assert_eq!(extra.user, "someone");
    }
}
