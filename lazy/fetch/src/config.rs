//! How the fetcher behaves: its limits, each with the reason for its default.

use std::time::Duration;

/// Limits of a [`Fetcher`](crate::Fetcher).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Most bytes the cache may take on disk; what mounted images need is kept even so, but nothing is added past it.
    pub quota_bytes: u64,
    /// Bytes of the file system that are left free for others.
    pub reserve_bytes: u64,
    /// Most bytes that are held in memory at once, received and decoded together, for everything but faults. A fault that
    /// needs more than is left goes on alone.
    pub budget_bytes: u64,
    /// Longest a read waits before it fails. Once the sources have been out of reach for that long, reads fail sooner.
    pub fault_deadline: Duration,
    /// Longest one request may give no byte before another one is made elsewhere.
    pub stall: Duration,
    /// Widest hole between two wanted groups that one request may bridge, in bytes.
    pub gap_bytes_max: u64,
    /// Longest range that is asked for at once by the background and by traces, in bytes.
    pub range_bytes_max: u64,
    /// Longest range that is asked for at once by a fault, in bytes, if no single group is longer: what comes behind the
    /// bytes that are waited for are the next of the same file.
    pub fault_range_bytes_max: u64,
    /// Fewest and most bytes that come along with a fault unasked, from the groups behind it in the blob: files that lie
    /// together are read together. In between, what the line carries in one round trip.
    pub along_bytes_min: u64,
    /// See [`Config::along_bytes_min`]. 0 turns it off.
    pub along_bytes_max: u64,
    /// Requests at once, faults included.
    pub transfers_max: usize,
    /// Requests at once by the background and by traces. They stop while a fault is being served.
    pub background_transfers_max: usize,
}

impl Default for Config {
    /// No quota but the disk's: 2 GiB stay free. 64 MiB of memory. 30 s for a read, which is when most programs give up too.
    fn default() -> Self {
        Self {
            quota_bytes: u64::MAX,
            reserve_bytes: 2 * GIB,
            budget_bytes: 64 * MIB,
            fault_deadline: Duration::from_secs(30),
            stall: Duration::from_secs(5),
            // About one round trip of wasted transfer: 20 ms at 50 Mbit/s is 125 kB.
            gap_bytes_max: 128 * 1024,
            range_bytes_max: 8 * MIB,
            fault_range_bytes_max: MIB,
            along_bytes_min: 32 * 1024,
            along_bytes_max: 256 * 1024,
            transfers_max: 16,
            background_transfers_max: 4,
        }
    }
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
