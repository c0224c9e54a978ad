//! PAX records: `<length> <key>=<value>\n`, of one entry or global.

use storage_sys::tree::Timestamp;

use super::TarError;
use crate::EntryName;

/// What the extended headers before an entry say of it. Fields that are absent stay as the header has them.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) atime: Option<Timestamp>,
    pub(super) xattrs: super::Xattrs,
    pub(super) sparse: SparseRecords,
}

/// `GNU.sparse.*`.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `size` of version 0 or `realsize` of version 1: length of the file, holes included.
    pub(super) real_size: Option<u64>,
    /// Version 0.1: offsets and lengths in turn.
    pub(super) map: Option<Vec<u64>>,
    /// Version 0.0: the same from repeated records.
    pub(super) pieces: Vec<u64>,
    pub(super) count: Option<u64>,
}

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits a body into its records.
fn records(body: &[u8], offset: u64) -> Result<Vec<Record<'_>>, TarError> {
    let bad = |reason| TarError::Extended { offset, reason };
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let space =
            rest.iter().take(21).position(|&byte| byte == b' ').ok_or(bad("a record has no length"))?;
        let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(bad("the length of a record is not a number"))?;
        if length <= space + 1 || length > rest.len() {
            return Err(bad("the length of a record is not that of the record"));
        }
        let (record, after) = rest.split_at(length);
        let (last, record) = record.split_last().expect("longer than one byte");
        if *last != b'\n' {
            return Err(bad("a record does not end with a new line"));
        }
        let record = &record[space + 1..];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or(bad("a record has no \"=\""))?;
        if equals == 0 {
            return Err(bad("a record has no key"));
        }
        found.push((&record[..equals], &record[equals + 1..]));
        rest = after;
    }
    Ok(found)
}

impl Records {
    /// Reads the body of a local header.
    pub(super) fn parse(body: &[u8], offset: u64, xattr_bytes_max: usize) -> Result<Self, TarError> {
        let mut this = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        let mut xattr_bytes = 0usize;
        for (key, value) in records(body, offset)? {
            let repeats = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            if !seen.insert(key) && !repeats {
                return Err(TarError::Duplicate { offset, key: EntryName(key.to_vec()) });
            }
            if key.contains(&0) {
                return Err(TarError::Extended { offset, reason: "a key contains a NUL byte" });
            }
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattr_bytes += name.len() + value.len();
                if name.is_empty() || xattr_bytes > xattr_bytes_max {
                    let reason = "an extended attribute has no name, or they are too many";
                    return Err(TarError::Extended { offset, reason });
                }
                this.xattrs.push((name.to_vec(), value.to_vec()));
                continue;
            }
            this.take(key, value, offset)?;
        }
        Ok(this)
    }

    /// One record that is not an extended attribute. An empty value keeps the header's, as POSIX has it.
    fn take(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), TarError> {
        if value.is_empty() {
            return Ok(());
        }
        let number = |field| TarError::Number { offset, field };
        match key {
            b"path" => self.path = Some(name(value, offset)?),
            b"linkpath" => self.link_path = Some(name(value, offset)?),
            b"size" => self.size = Some(decimal(value).ok_or(number("size"))?),
            b"uid" => self.uid = Some(decimal_signed(value).ok_or(number("owner"))?),
            b"gid" => self.gid = Some(decimal_signed(value).ok_or(number("group"))?),
            b"mtime" => self.mtime = Some(time(value).ok_or(number("time"))?),
            b"atime" => self.atime = Some(time(value).ok_or(number("time"))?),
            _ => match key.strip_prefix(b"GNU.sparse.") {
                Some(key) => self.sparse.take(key, value, offset)?,
                None if value.contains(&0) && matches!(key, b"uname" | b"gname") => {
                    return Err(TarError::Extended { offset, reason: "a name contains a NUL byte" });
                }
                // uname, gname, comment, charset, vendors' own: no part of a tree.
                None => {}
            },
        }
        Ok(())
    }
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), TarError> {
        let bad = TarError::Sparse { offset, reason: "a record is not a number" };
        match key {
            b"name" => {
                self.name = Some(name(value, offset)?);
                return Ok(());
            }
            b"map" => {
                let map: Option<Vec<u64>> = value.split(|&byte| byte == b',').map(decimal).collect();
                self.map = Some(map.ok_or(bad)?);
                return Ok(());
            }
            _ => {}
        }
        let value = decimal(value).ok_or(bad)?;
        match key {
            b"major" => self.major = Some(value),
            b"minor" => self.minor = Some(value),
            b"size" | b"realsize" if self.real_size.is_some_and(|size| size != value) => {
                return Err(TarError::Sparse { offset, reason: "it has two sizes" });
            }
            b"size" | b"realsize" => self.real_size = Some(value),
            b"numblocks" => self.count = Some(value),
            b"offset" if self.pieces.len().is_multiple_of(2) => self.pieces.push(value),
            b"numbytes" if !self.pieces.len().is_multiple_of(2) => self.pieces.push(value),
            b"offset" | b"numbytes" => {
                return Err(TarError::Sparse { offset, reason: "offsets and lengths do not alternate" });
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether any record speaks of a sparse file.
    pub(super) fn any(&self) -> bool {
        self.major.is_some()
            || self.minor.is_some()
            || self.map.is_some()
            || !self.pieces.is_empty()
            || self.name.is_some()
            || self.real_size.is_some()
    }
}

/// Checks a global header. Go and the engines made with it ignore its records, POSIX applies them: those that would
/// change what an entry is, are refused; times and comments are ignored, as Go does.
pub(super) fn check_global(body: &[u8], offset: u64) -> Result<(), TarError> {
    for (key, _) in records(body, offset)? {
        let decides = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"uname" | b"gname")
            || key.starts_with(b"SCHILY.")
            || key.starts_with(b"GNU.");
        if decides {
            return Err(TarError::Global { offset, key: EntryName(key.to_vec()) });
        }
    }
    Ok(())
}

fn name(value: &[u8], offset: u64) -> Result<Vec<u8>, TarError> {
    if value.contains(&0) {
        return Err(TarError::Extended { offset, reason: "a name contains a NUL byte" });
    }
    Ok(value.to_vec())
}

/// Decimal digits and nothing else, at most 2^63 - 1.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let value = text.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })?;
    i64::try_from(value).is_ok().then_some(value)
}

fn decimal_signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => decimal(digits).and_then(|value| i64::try_from(value).ok()).map(|value| -value),
        None => decimal(text).and_then(|value| i64::try_from(value).ok()),
    }
}

/// `[-]seconds[.fraction]`; the fraction is cut after nanoseconds, towards the past for times before 1970.
fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let nanoseconds = (0..9)
        .fold(0u32, |value, at| value * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length.to_string().len() + body != length {
            length += 1;
        }
        format!("{length} {key}={value}\n").into_bytes()
    }

    fn parse(body: &[u8]) -> Result<Records, TarError> {
        Records::parse(body, 0, 1 << 20)
    }

    #[test]
    fn records_override_and_empty_ones_do_not() {
        let body = [record("path", "a/b=c\nd"), record("size", ""), record("mtime", "-1.5")].concat();
        let records = parse(&body).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b=c\nd"[..]));
        assert_eq!(records.size, None);
        assert_eq!(records.mtime, Some(Timestamp { seconds: -2, nanoseconds: 500_000_000 }));
    }

    #[test]
    fn vuln_u03_no_malformed_or_repeated_record_is_skipped() {
        let good = [record("path", "victim"), record("size", "512")].concat();
        assert!(parse(&good).is_ok());
        for body in [
            &b"path=x\n"[..],
            b" 8 path=x\n",
            b"0 a=b\n",
            b"3 \n",
            b"99 path=x\n",
            b"9 path=xy\n",
            b"8 path=x\n",
            b"+9 path=x\n",
            b"9 path:x\n",
            b"7 =xyz\n",
            b"99999999999999999999999 path=x\n",
            b"11 path=x\0\n",
            b"10 path=xy\n\n",
        ] {
            assert!(parse(body).is_err(), "{}", body.escape_ascii());
        }
        let twice = [record("size", "1"), record("size", "2")].concat();
        assert!(matches!(parse(&twice), Err(TarError::Duplicate { .. })));
        for size in ["-1", "9223372036854775808", "0x10", "1 ", "1e3", "+1"] {
            assert!(parse(&record("size", size)).is_err(), "{size:?}");
        }
    }

    #[test]
    fn a_global_record_that_tools_read_in_two_ways_is_refused() {
        check_global(&record("comment", "c0ffee"), 0).unwrap();
        check_global(&record("mtime", "1"), 0).unwrap();
        for key in ["path", "size", "uid", "SCHILY.xattr.user.a", "GNU.sparse.major"] {
            assert!(matches!(check_global(&record(key, "1"), 0), Err(TarError::Global { .. })), "{key}");
        }
    }
}
