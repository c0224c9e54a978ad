//! The first exchange on a connection (`FUSE_INIT`): which abilities the kernel offers, which are taken.
//!
//! `fuse-backend-rs` 0.14 drops the abilities it does not know, those above bit 31 and `max_stack_depth` among them.

use super::{READ_BYTES_MAX, REQUEST_HEADER_BYTES, RequestHeader, u32_at};

/// `FUSE_INIT`.
const OPCODE: u32 = 26;

/// The protocol's major version; the kernel answers a lower one with its own.
const MAJOR: u32 = 7;

/// The highest minor version this side knows the answer's layout of.
const MINOR_MAX: u32 = 40;

/// Requests that nobody waits for, read-ahead that is, which the kernel has out at a time.
const BACKGROUND_MAX: u16 = 64;

/// From here on it holds back.
const CONGESTION: u16 = 48;

/// Bytes of a write. Nothing is ever written; it bounds the buffer that requests are read into.
const WRITE_BYTES_MAX: u32 = 4096;

/// Abilities, as bits of [`InitRequest::flags`].
pub mod flags {
    /// Several reads of a file at a time.
    pub const ASYNC_READ: u64 = 1;
    /// Nodes can be looked up by number (names `.` and `..`), which file handles need.
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    /// Directories are read with attributes.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// ... when somebody asks for the attributes.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// `ENOSYS` to an open means: never ask again.
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    /// Lookups in one directory at the same time.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// The kernel enforces access control lists.
    pub const POSIX_ACL: u64 = 1 << 20;
    /// More than 32 pages in a request.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Targets of symbolic links stay in the page cache.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// `ENOSYS` to an opendir means: never ask again.
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// Cached data is valid until it is said that it is not.
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// There are bits above 31.
    pub const INIT_EXT: u64 = 1 << 30;
    /// Files the kernel reads by itself (Linux 6.9).
    pub const PASSTHROUGH: u64 = 1 << 37;
    /// Lost requests can be had again (Linux 6.9).
    pub const HAS_RESEND: u64 = 1 << 39;
    /// The mount may be idmapped (Linux 6.12).
    pub const ALLOW_IDMAP: u64 = 1 << 40;
}

/// What the kernel says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitRequest {
    /// Number of the request.
    pub unique: u64,
    /// Major version of its protocol.
    pub major: u32,
    /// Minor version of its protocol.
    pub minor: u32,
    /// Most bytes it wants to read ahead.
    pub read_ahead: u32,
    /// What it can do ([`flags`]).
    pub flags: u64,
}

impl InitRequest {
    /// The handshake in `request`; `None` if it is something else or too short.
    pub fn parse(request: &[u8]) -> Option<Self> {
        let header = RequestHeader::parse(request).filter(|header| header.opcode == OPCODE)?;
        let body = &request[REQUEST_HEADER_BYTES..];
        let low = u64::from(u32_at(body, 12)?);
        let high = if low & flags::INIT_EXT == 0 { 0 } else { u64::from(u32_at(body, 16)?) };
        Some(Self {
            unique: header.unique,
            major: u32_at(body, 0)?,
            minor: u32_at(body, 4)?,
            read_ahead: u32_at(body, 8)?,
            flags: low | high << 32,
        })
    }
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitAnswer {
    /// Minor version both sides speak.
    pub minor: u32,
    /// Abilities both sides have.
    pub flags: u64,
    read_ahead: u32,
}

impl InitAnswer {
    /// Takes those of the abilities `wanted` that the kernel offers.
    pub fn new(request: &InitRequest, wanted: u64) -> Self {
        Self {
            minor: request.minor.min(MINOR_MAX),
            flags: request.flags & (wanted | flags::INIT_EXT),
            read_ahead: request.read_ahead.max(READ_BYTES_MAX),
        }
    }

    /// The answer's body (`struct fuse_init_out`), 64 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        let u32s = |body: &mut Vec<u8>, values: &[u32]| {
            for value in values {
                body.extend_from_slice(&value.to_ne_bytes());
            }
        };
        u32s(&mut body, &[MAJOR, self.minor, self.read_ahead, self.flags as u32]);
        body.extend_from_slice(&BACKGROUND_MAX.to_ne_bytes());
        body.extend_from_slice(&CONGESTION.to_ne_bytes());
        // Times are in nanoseconds.
        u32s(&mut body, &[WRITE_BYTES_MAX, 1]);
        let pages = READ_BYTES_MAX / 4096;
        body.extend_from_slice(&(pages as u16).to_ne_bytes());
        body.extend_from_slice(&0u16.to_ne_bytes());
        // What is read through may not itself be stacked, so that one overlay fits on top of this.
        let stack_depth = u32::from(self.flags & flags::PASSTHROUGH != 0);
        u32s(&mut body, &[(self.flags >> 32) as u32, stack_depth]);
        body.resize(64, 0);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(offered: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; REQUEST_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&OPCODE.to_ne_bytes());
        bytes[8..16].copy_from_slice(&9u64.to_ne_bytes());
        for value in [7u32, 44, 131_072, offered as u32, (offered >> 32) as u32] {
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn only_what_is_offered_and_wanted_is_taken() {
        let offered = flags::INIT_EXT | flags::HAS_RESEND | flags::MAX_PAGES;
        let parsed = InitRequest::parse(&request(offered, 200)).unwrap();
        assert_eq!((parsed.unique, parsed.minor, parsed.flags), (9, 44, offered));
        let answer = InitAnswer::new(&parsed, flags::HAS_RESEND | flags::PASSTHROUGH);
        assert_eq!(answer.flags, flags::INIT_EXT | flags::HAS_RESEND);
        let body = answer.encode();
        assert_eq!(body.len(), 64);
        assert_eq!(u32_at(&body, 4), Some(40));
        assert_eq!(u32_at(&body, 32), Some((flags::HAS_RESEND >> 32) as u32));
        assert_eq!(u32_at(&body, 36), Some(0), "no passthrough, so no stacking");
    }

    #[test]
    fn a_request_that_is_cut_or_another_is_no_handshake() {
        for length in 0..60 {
            assert!(InitRequest::parse(&request(flags::INIT_EXT, length)).is_none(), "{length}");
        }
        let mut other = request(0, 200);
        other[4] = 1;
        assert!(InitRequest::parse(&other).is_none());
    }
}
