//! Members to bytes of the blob: compressed by several threads, written in order by one.
//!
//! ```text
//! worker k: members k, k+T, k+2T ...  read, hash the piece, compress --(2 waiting)--> caller: in turn, hash, write
//! ```
//! Each worker has a queue of its own, and the caller takes from them in turn: the order is that of the plan whatever the
//! threads do, and no more than a few members per thread are in memory. A member is compressed alone, so the bytes do
//! not depend on the number of threads.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use storage_model::{Digest, Hasher};

use crate::BuildError;
use crate::plan::Member;

/// How members are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// gzip, level 0 to 9.
    Gzip(u32),
    /// Zstandard, level 1 to 22.
    Zstd(i32),
}

/// Members waiting with each worker.
const WAITING: usize = 2;

/// Where a member lies in the blob, and the digest of the piece it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) piece: Option<Digest>,
}

/// The blob under way.
pub(crate) struct Output<W> {
    sink: W,
    blob: Hasher,
    tar: Hasher,
    codec: Codec,
}

/// What came out.
pub(crate) struct Finished {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) tar_digest: Digest,
    pub(crate) tar_bytes: u64,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(sink: W, codec: Codec) -> Self {
        Self { sink, blob: Hasher::new(), tar: Hasher::new(), codec }
    }

    /// Bytes of the blob so far.
    pub(crate) fn offset(&self) -> u64 {
        self.blob.bytes()
    }

    /// Writes bytes that are no part of the tar: skippable frames, footers.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        self.blob.update(bytes);
        self.sink.write_all(bytes).map_err(BuildError::Sink)
    }

    /// Writes one more member, made here.
    pub(crate) fn member(&mut self, tar: &[u8]) -> Result<(), BuildError> {
        self.tar.update(tar);
        let coded = self.codec.compress(tar).map_err(BuildError::Sink)?;
        self.raw(&coded)
    }

    /// Writes all members and tells where each is.
    ///
    /// # Errors
    /// [`BuildError::Source`], [`BuildError::Sink`], [`BuildError::Thread`].
    pub(crate) fn members(
        &mut self,
        tar: &File,
        members: &[Member],
        threads: usize,
    ) -> Result<Vec<Placed>, BuildError> {
        let threads = threads.clamp(1, members.len().max(1));
        let codec = self.codec;
        std::thread::scope(|scope| {
            let mut queues = Vec::with_capacity(threads);
            for first in 0..threads {
                let (done, queue) = sync_channel(WAITING);
                let work = move || work(tar, members, first, threads, codec, &done);
                Builder::new()
                    .name("lazy-compress".into())
                    .spawn_scoped(scope, work)
                    .map_err(BuildError::Thread)?;
                queues.push(queue);
            }
            self.collect(members.len(), &queues)
            // The queues end here, and with them workers that still want to send.
        })
    }

    fn collect(&mut self, members: usize, queues: &[Receiver<Made>]) -> Result<Vec<Placed>, BuildError> {
        let mut placed = Vec::with_capacity(members);
        for number in 0..members {
            let made = queues[number % queues.len()].recv();
            let made = made.map_err(|_| BuildError::Source(io::ErrorKind::BrokenPipe.into()))?;
            let Coded { tar, coded, piece } = made.map_err(BuildError::Source)?;
            placed.push(Placed { offset: self.offset(), piece });
            self.tar.update(&tar);
            self.raw(&coded)?;
        }
        Ok(placed)
    }

    pub(crate) fn finish(mut self) -> Result<Finished, BuildError> {
        self.sink.flush().map_err(BuildError::Sink)?;
        let (size, tar_bytes) = (self.blob.bytes(), self.tar.bytes());
        Ok(Finished { digest: self.blob.finish(), size, tar_digest: self.tar.finish(), tar_bytes })
    }
}

struct Coded {
    tar: Vec<u8>,
    coded: Vec<u8>,
    piece: Option<Digest>,
}

type Made = io::Result<Coded>;

fn work(tar: &File, members: &[Member], first: usize, step: usize, codec: Codec, done: &SyncSender<Made>) {
    for member in members.iter().skip(first).step_by(step) {
        let made = make(tar, member, codec);
        let failed = made.is_err();
        if done.send(made).is_err() || failed {
            return;
        }
    }
}

fn make(tar: &File, member: &Member, codec: Codec) -> Made {
    let mut bytes = Vec::with_capacity(usize::try_from(member.bytes).unwrap_or_default());
    member.read(tar, &mut bytes)?;
    let piece = usize::try_from(member.piece_bytes).ok().filter(|length| *length > 0);
    let piece = piece.map(|length| Digest::of(&bytes[..length]));
    let coded = codec.compress(&bytes)?;
    Ok(Coded { tar: bytes, coded, piece })
}

impl Codec {
    /// One gzip member or zstd frame, without time, name or system in its header.
    pub(crate) fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(level) => {
                let room = Vec::with_capacity(bytes.len() / 2 + 64);
                let mut encoder = flate2::GzBuilder::new().write(room, flate2::Compression::new(level));
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Zstd(level) => zstd::bulk::compress(bytes, level),
        }
    }
}
