//! Numbers of snapshots: given once, never again.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::metadata::{Metadata, Record, Table};

/// Gives out numbers. Blocks of them are reserved in the metadata before the first is used, so a crash skips numbers but
/// never repeats one.
pub(crate) struct Numbers(Mutex<Block>);

/// `next <= end`; numbers in between are reserved and not given out.
struct Block {
    next: u64,
    end: u64,
}

/// Numbers reserved at a time: a crash skips fewer, and one prepare in as many pays for the reservation (one sync).
const BLOCK: u64 = 256;

/// Key of the first number that was never reserved.
const NUMBERS_KEY: &[u8] = b"snapshot-numbers";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Reserved {
    end: u64,
}

impl Record for Reserved {
    const TABLE: Table = Table::Meta;
}

impl Numbers {
    /// The numbers behind all that were ever reserved, and behind `used`, the highest that a directory has: should the
    /// record have lost its last change, no directory gets a second owner.
    pub(crate) fn load(metadata: &Metadata, used: u64) -> Result<Self, StoreError> {
        let end = metadata.get::<Reserved>(NUMBERS_KEY)?.map_or(1, |reserved| reserved.end).max(used + 1);
        Ok(Self(Mutex::new(Block { next: end, end })))
    }

    /// Makes sure that every number given from now on is higher than `known`, whatever the record says: it may be lost.
    pub(crate) fn continue_behind(metadata: &Metadata, known: u64) -> Result<(), StoreError> {
        metadata.transact(|transaction| {
            let reserved = match transaction.lock::<Reserved>(NUMBERS_KEY) {
                Ok(reserved) => reserved.map_or(1, |reserved| reserved.end),
                Err(StoreError::Record { .. }) => 1,
                Err(error) => return Err(error),
            };
            // Numbers were given a block ahead of the records: the last of them may have left no trace.
            let end = reserved.max(known + 1 + BLOCK);
            transaction.put(NUMBERS_KEY, &Reserved { end })
        })
    }

    /// A number that was never given.
    pub(crate) fn next(&self, metadata: &Metadata) -> Result<u64, StoreError> {
        let mut block = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if block.next == block.end {
            let end = block.end + BLOCK;
            metadata.transact(|transaction| transaction.put(NUMBERS_KEY, &Reserved { end }))?;
            block.end = end;
        }
        block.next += 1;
        Ok(block.next - 1)
    }
}
