//! Bytes between the network, which must not block, and work on a thread that may: one side is `Read` or `Write`, the
//! other a channel.
//!
//! A writer waits while its reader is behind, and fails once that is gone, which ends the work of a client that left. A
//! reader sees the end of the bytes only if the other side said that it is the end: a client that dies in the middle
//! of an archive is an error, not a short archive.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

/// Bytes in one message: a few hundred messages a second at the speed of a disk.
const CHUNK_BYTES: usize = 64 * 1024;

/// Messages between the two sides.
const CHUNKS_WAITING: usize = 8;

/// A writer whose bytes become messages `M` of a channel. What is not flushed when it is dropped is lost.
#[derive(Debug)]
pub(crate) struct Sink<M> {
    messages: mpsc::Sender<M>,
    message: fn(Vec<u8>) -> M,
    buffer: Vec<u8>,
}

impl<M> Sink<M> {
    /// Writes to `messages`, each made by `message`.
    pub(crate) fn new(messages: mpsc::Sender<M>, message: fn(Vec<u8>) -> M) -> Self {
        Self { messages, message, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }
}

impl<M> Write for Sink<M> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.messages
            .blocking_send((self.message)(chunk))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}

/// What a [`Source`] is given.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// The next bytes.
    Data(Vec<u8>),
    /// There are no more.
    End,
}

/// A reader of what is sent to it.
#[derive(Debug)]
pub(crate) struct Source {
    chunks: mpsc::Receiver<Chunk>,
    current: Vec<u8>,
    /// Bytes of `current` that were read; `read <= current.len()`.
    read: usize,
    ended: bool,
}

impl Source {
    /// A reader and where its bytes are sent.
    pub(crate) fn new() -> (mpsc::Sender<Chunk>, Self) {
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        (sender, Self { chunks, current: Vec::new(), read: 0, ended: false })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.current.len() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Chunk::Data(bytes)) => (self.current, self.read) = (bytes, 0),
                Some(Chunk::End) => self.ended = true,
                None => {
                    let words = "the client went away before it had sent everything";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, words));
                }
            }
        }
        let rest = &self.current[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_end_where_the_sender_said() {
        let (sender, mut source) = Source::new();
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (messages, mut received) = mpsc::channel(2);
        let expected = sent.clone();
        let writing = std::thread::spawn(move || {
            let mut sink = Sink::new(messages, Chunk::Data);
            sink.write_all(&sent).unwrap();
            sink.flush().unwrap();
        });
        let carrying = std::thread::spawn(move || {
            while let Some(chunk) = received.blocking_recv() {
                sender.blocking_send(chunk).unwrap();
            }
            sender.blocking_send(Chunk::End).unwrap();
        });
        let mut read = Vec::new();
        source.read_to_end(&mut read).unwrap();
        writing.join().unwrap();
        carrying.join().unwrap();
        assert!(read == expected, "{} of {} bytes arrived", read.len(), expected.len());
        assert_eq!(source.read(&mut [0]).unwrap(), 0, "the end stays the end");
    }

    #[test]
    fn a_sender_that_goes_without_a_word_is_an_error_and_not_the_end() {
        let (sender, mut source) = Source::new();
        sender.blocking_send(Chunk::Data(vec![1, 2])).unwrap();
        drop(sender);
        let error = source.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_writer_whose_reader_is_gone_fails() {
        let (messages, received) = mpsc::channel(1);
        let mut sink = Sink::new(messages, Chunk::Data);
        drop(received);
        assert_eq!(sink.write_all(&[0; CHUNK_BYTES]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
