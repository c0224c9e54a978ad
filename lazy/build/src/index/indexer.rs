//! [`Indexer`]: the index of a stream that somebody else reads and passes on, as bytes to write.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use storage_model::Compression;

use super::{IndexOptions, Indexed, index_layer};
use crate::BuildError;

/// Buffers on their way to the thread: enough for the writer to go on while a block is inflated.
const WAITING: usize = 16;

/// Indexes what is written to it, on a thread of its own.
///
/// A layer that cannot be indexed does not disturb who writes: [`Write::write`] takes everything, and [`Indexer::finish`]
/// tells. Dropping it without finishing ends the thread.
#[derive(Debug)]
pub struct Indexer {
    bytes: SyncSender<Vec<u8>>,
    thread: JoinHandle<Result<Indexed, BuildError>>,
}

impl Indexer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`BuildError::Thread`].
    pub fn start(compression: Compression, options: IndexOptions) -> Result<Self, BuildError> {
        let (bytes, arriving) = sync_channel(WAITING);
        let source = Arriving { arriving, now: Vec::new(), at: 0 };
        let work = move || index_layer(source, compression, &options);
        let thread = Builder::new().name("lazy-index".into()).spawn(work).map_err(BuildError::Thread)?;
        Ok(Self { bytes, thread })
    }

    /// The index, after the last byte was written.
    ///
    /// # Errors
    /// Those of [`index_layer`].
    pub fn finish(self) -> Result<Indexed, BuildError> {
        let Self { bytes, thread } = self;
        drop(bytes);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Write for Indexer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A thread that has ended has its reason for `finish`.
        let _ = self.bytes.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written, as a source.
struct Arriving {
    arriving: Receiver<Vec<u8>>,
    now: Vec<u8>,
    at: usize,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.now.len() {
            match self.arriving.recv() {
                Ok(next) => (self.now, self.at) = (next, 0),
                Err(_) => return Ok(0),
            }
        }
        let take = buffer.len().min(self.now.len() - self.at);
        buffer[..take].copy_from_slice(&self.now[self.at..self.at + take]);
        self.at += take;
        Ok(take)
    }
}
