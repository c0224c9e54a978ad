//! One entry of the JSON, and what it becomes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use storage_model::Digest;
use storage_sys::tree::EntryPath;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::shown;
use crate::{Entry, IndexError, Kind, Limits, Time, Xattrs};

/// An entry as it stands in the JSON. Names of all dialects; absent numbers are 0, which Go's `omitempty` leaves out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    link_name: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) size: i64,
    #[serde(default)]
    mode: i64,
    #[serde(default)]
    uid: i64,
    #[serde(default)]
    gid: i64,
    #[serde(borrow, default)]
    modtime: Option<Cow<'a, str>>,
    #[serde(default)]
    dev_major: i64,
    #[serde(default)]
    dev_minor: i64,
    #[serde(borrow, default)]
    xattrs: Option<BTreeMap<Cow<'a, str>, Option<Cow<'a, str>>>>,
    #[serde(borrow, default)]
    digest: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) offset: i64,
    #[serde(default)]
    pub(super) end_offset: i64,
    #[serde(default)]
    pub(super) inner_offset: i64,
    #[serde(default)]
    pub(super) chunk_offset: i64,
    #[serde(default)]
    pub(super) chunk_size: i64,
    #[serde(borrow, default)]
    chunk_digest: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    chunk_type: Option<Cow<'a, str>>,
}

impl Raw<'_> {
    /// Whether it continues the file before it.
    pub(super) fn is_chunk(&self) -> bool {
        self.kind == "chunk"
    }

    /// Whether its bytes are all zeros and nowhere in the blob.
    pub(super) fn is_zeros(&self) -> bool {
        self.chunk_type.as_deref() == Some("zeros")
    }

    /// Why it cannot be, as an error.
    pub(super) fn refused(&self, reason: &'static str) -> IndexError {
        IndexError::Entry { path: shown(self.name.as_bytes()), reason }
    }

    /// A number that must not be negative.
    pub(super) fn whole(&self, number: i64) -> Result<u64, IndexError> {
        u64::try_from(number).map_err(|_| self.refused("one of its offsets or lengths is negative"))
    }

    /// Digest of its first or only chunk.
    pub(super) fn chunk_digest(&self) -> Result<Option<Digest>, IndexError> {
        self.digest_of(self.chunk_digest.as_deref())
    }

    fn digest_of(&self, text: Option<&str>) -> Result<Option<Digest>, IndexError> {
        match text {
            None | Some("") => Ok(None),
            Some(text) => digest(text)
                .map(Some)
                .ok_or_else(|| self.refused("one of its digests is not sha256 and 64 hex digits")),
        }
    }

    /// Its name, cleaned.
    pub(super) fn path(&self) -> Result<Box<[u8]>, IndexError> {
        self.clean(&self.name, false)
    }

    /// JSON cannot carry names that are not UTF-8: Go writes U+FFFD in their place, and then nobody knows the name.
    fn clean(&self, name: &str, confined: bool) -> Result<Box<[u8]>, IndexError> {
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(self.refused("a name in it is not UTF-8 in the layer, so the table does not know it"));
        }
        let parse = if confined { EntryPath::parse_confined } else { EntryPath::parse };
        let path = parse(name.as_bytes());
        path.map(|path| path.as_bytes().into()).map_err(|_| {
            self.refused("a name in it leads out of the root, contains a NUL byte, or is too long")
        })
    }

    /// The entry it is, without chunks.
    pub(super) fn entry(&self, limits: &Limits) -> Result<Entry, IndexError> {
        let in_range = |number: i64, max: u32| {
            let value = u32::try_from(number).ok().filter(|value| *value <= max);
            value.ok_or_else(|| self.refused("its owner or device number is out of range"))
        };
        Ok(Entry {
            path: self.path()?,
            kind: self.kind(&|number| in_range(number, u32::MAX))?,
            mode: (self.mode & 0o7777) as u32,
            uid: in_range(self.uid, u32::MAX - 1)?,
            gid: in_range(self.gid, u32::MAX - 1)?,
            mtime: self.mtime()?,
            xattrs: self.xattrs(limits)?,
        })
    }

    fn kind(&self, device: &dyn Fn(i64) -> Result<u32, IndexError>) -> Result<Kind, IndexError> {
        let link = self.link_name.as_deref().unwrap_or_default();
        Ok(match &*self.kind {
            "dir" => Kind::Directory,
            "reg" => Kind::File {
                size: self.whole(self.size)?,
                digest: self.digest_of(self.digest.as_deref())?,
                chunks: 0..0,
            },
            "symlink" if link.contains(char::REPLACEMENT_CHARACTER) => {
                return Err(
                    self.refused("its target is not UTF-8 in the layer, so the table does not know it")
                );
            }
            "symlink" => Kind::Symlink(link.as_bytes().into()),
            "hardlink" => Kind::Hardlink(self.clean(link, true)?),
            "char" => Kind::Character { major: device(self.dev_major)?, minor: device(self.dev_minor)? },
            "block" => Kind::Block { major: device(self.dev_major)?, minor: device(self.dev_minor)? },
            "fifo" => Kind::Fifo,
            _ => {
                return Err(
                    self.refused("its type is none of reg, dir, symlink, hardlink, char, block, fifo, chunk")
                );
            }
        })
    }

    fn mtime(&self) -> Result<Time, IndexError> {
        let Some(text) = self.modtime.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(Time::default());
        };
        time(text).ok_or_else(|| self.refused("its time is not RFC 3339"))
    }

    fn xattrs(&self, limits: &Limits) -> Result<Xattrs, IndexError> {
        let mut bytes = 0;
        let mut list = Xattrs::new();
        for (name, value) in self.xattrs.iter().flatten() {
            let decoded = STANDARD.decode(value.as_deref().unwrap_or_default());
            let value = decoded.map_err(|_| self.refused("an extended attribute of it is not base64"))?;
            bytes += name.len() + value.len();
            if bytes > limits.xattr_bytes_max {
                return Err(self.refused("its extended attributes are larger than the limit"));
            }
            list.push((name.as_bytes().into(), value.into()));
        }
        Ok(list)
    }
}

/// A digest, if the text is one.
pub(super) fn digest(text: &str) -> Option<Digest> {
    text.parse().ok()
}

/// A time as RFC 3339 writes it, with or without a fraction.
pub(crate) fn time(text: &str) -> Option<Time> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(Time { secs: time.unix_timestamp(), nanos: time.nanosecond() })
}
