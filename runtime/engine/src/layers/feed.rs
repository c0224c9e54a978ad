//! Carries a layer's bytes from the network to the store and the unpacker at once.
//!
//! `network -> [channel] -> Writer: hash, write to the ingest -> [channel] -> Feed: Read for the unpacker`
//!
//! The unpacker starts with what an earlier, interrupted download left in the ingest, and goes on with what arrives.
//! Nothing of a fresh download is read back from disk.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use storage_content::{Expected, Ingest, StoreError};
use storage_model::Labels;

use super::progress::{Clock, Part};

/// Pieces that may wait between the store and the unpacker.
///
/// A piece is what one read of the socket gave, at most a few hundred KiB: about 10 MB per layer when inflate is slower
/// than the network.
const PIECES_MAX: usize = 64;

/// Pieces that may wait between the network and the store.
pub(crate) const NETWORK_PIECES_MAX: usize = 32;

/// What the network says to the writer.
pub(crate) type FromNetwork = tokio::sync::mpsc::Receiver<Bytes>;

enum Piece {
    Bytes(Bytes),
    /// The whole blob has passed.
    End,
}

/// Reads a layer's compressed bytes: first what was on disk, then what arrives.
pub(crate) struct Feed {
    prefix: io::Take<File>,
    pieces: Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// Makes the unpacker's end of a download that resumes after `offset` bytes, which `written` holds.
pub(crate) fn feed(written: File, offset: u64) -> (Outlet, Feed) {
    let (sender, pieces) = sync_channel(PIECES_MAX);
    let feed = Feed { prefix: written.take(offset), pieces, current: Bytes::new(), ended: false };
    (Outlet { sender: Some(sender) }, feed)
}

/// The writer's end.
pub(crate) struct Outlet {
    /// `None` once the unpacker has given up: the blob is still worth finishing, to know whose fault it is.
    sender: Option<SyncSender<Piece>>,
}

impl Outlet {
    fn send(&mut self, piece: Piece) {
        if let Some(sender) = &self.sender
            && sender.send(piece).is_err()
        {
            self.sender = None;
        }
    }
}

/// Writes what arrives into the ingest and passes it on, until the network is done; then publishes the blob with
/// `labels`.
///
/// Returns `None` if the network ended early: the ingest stays, to be resumed.
pub(crate) fn write_through(
    mut ingest: Ingest,
    mut arriving: FromNetwork,
    mut outlet: Outlet,
    expected: Expected,
    labels: Labels,
    clock: &Clock,
) -> Result<Option<()>, StoreError> {
    while let Some(bytes) = arriving.blocking_recv() {
        clock.time(Part::Store, || ingest.write(&bytes))?;
        outlet.send(Piece::Bytes(bytes));
    }
    if expected.size.is_some_and(|size| ingest.offset() < size) {
        return Ok(None);
    }
    outlet.send(Piece::End);
    drop(outlet);
    match clock.time(Part::Store, || ingest.commit(expected, labels)) {
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == storage_content::ErrorKind::AlreadyExists => Ok(Some(())),
        Err(error) => Err(error),
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.prefix.limit() > 0 {
            let read = self.prefix.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the partial download is shorter than recorded",
            ));
        }
        while self.current.is_empty() && !self.ended {
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => self.current = bytes,
                Ok(Piece::End) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was interrupted"));
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
