//! Buffers on their way: inflate -> hash -> write -> back, bounded on every edge.
//!
//! There are [`BUFFERS`] buffers in all, so no stage can run ahead of the others by more than that. A stage that ends
//! early drops its ends of the channels; its neighbours see that and end too.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Bytes of a buffer: large against a thread switch (256 KiB inflate in 0.5 ms), small enough for a core's L2 cache.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
/// Buffers of one layer: 2 MiB in all, 4 ms of inflate to bridge a slow write.
const BUFFERS: usize = 8;

/// Some of the layer's bytes.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    pub(crate) length: usize,
}

impl Buffer {
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Where inflate gets buffers from.
pub(crate) struct Empties {
    returned: Receiver<Buffer>,
    not_yet_made: usize,
}

impl Empties {
    /// An empty buffer; `None` once the writer has gone.
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        if let Ok(buffer) = self.returned.try_recv() {
            return Some(buffer);
        }
        if self.not_yet_made > 0 {
            self.not_yet_made -= 1;
            return Some(Buffer { bytes: vec![0; BUFFER_BYTES].into_boxed_slice(), length: 0 });
        }
        self.returned.recv().ok()
    }
}

/// The ends of the edges between the stages.
pub(crate) struct Edges {
    pub(crate) empties: Empties,
    pub(crate) to_hash: SyncSender<Buffer>,
    pub(crate) hash_in: Receiver<Buffer>,
    pub(crate) to_write: SyncSender<Buffer>,
    pub(crate) write_in: Arrivals,
}

pub(crate) fn edges() -> Edges {
    let (to_hash, hash_in) = sync_channel(BUFFERS);
    let (to_write, arriving) = sync_channel(BUFFERS);
    let (give_back, returned) = channel();
    Edges {
        empties: Empties { returned, not_yet_made: BUFFERS },
        to_hash,
        hash_in,
        to_write,
        write_in: Arrivals { arriving, give_back, present: None, taken: 0, waited: Duration::ZERO },
    }
}

/// The layer's bytes as they arrive at the writer.
pub(crate) struct Arrivals {
    arriving: Receiver<Buffer>,
    give_back: Sender<Buffer>,
    present: Option<Buffer>,
    taken: usize,
    /// How long the writer waited for bytes.
    pub(crate) waited: Duration,
}

impl BufRead for Arrivals {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.present.as_ref().is_none_or(|buffer| self.taken == buffer.length) {
            if let Some(used) = self.present.take() {
                // Inflate is done if it takes no more.
                let _ = self.give_back.send(used);
            }
            let start = Instant::now();
            let next = self.arriving.recv();
            self.waited += start.elapsed();
            let Ok(next) = next else { return Ok(&[]) };
            (self.present, self.taken) = (Some(next), 0);
        }
        Ok(self.present.as_ref().map_or(&[], |buffer| &buffer.filled()[self.taken..]))
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount;
    }
}

impl Read for Arrivals {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let arrived = self.fill_buf()?;
        let amount = arrived.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&arrived[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
