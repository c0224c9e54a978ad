//! Bytes over a side channel, with containerd's windows.
//!
//! The receiver says how many bytes it has room for (`WindowUpdate`), the sender sends no more (`Data`) until it hears
//! again. A sender that is done ends its half of the stream.

use runtime_api::any;
use runtime_api::containerd::types::transfer::{Data, WindowUpdate};
use tokio::sync::mpsc;
use tonic::Status;

use crate::pipe::{Chunk, Source};
use crate::status::{invalid, status};
use crate::streams::Stream;

/// Bytes that a client may be ahead of us: enough to keep the disk busy while its next message is on its way.
const WINDOW_BYTES: i32 = 1 << 20;

/// Bytes in one message: what containerd's own clients send.
const DATA_BYTES: usize = 32 * 1024;

/// A reader of what the client sends. The bytes are carried as long as the reader lives.
pub(super) fn receive(stream: Stream) -> Source {
    let (chunks, source) = Source::new();
    tokio::spawn(async move {
        if let Err(error) = carry_in(stream, &chunks).await {
            // The reader sees that the end is missing, and fails.
            tracing::info!(%error, "a client stopped in the middle of what it sent");
        }
    });
    source
}

async fn carry_in(stream: Stream, chunks: &mpsc::Sender<Chunk>) -> Result<(), Status> {
    let Stream { mut from_client, to_client } = stream;
    let mut room = 0;
    loop {
        if room < WINDOW_BYTES / 2 {
            let more = WindowUpdate { update: WINDOW_BYTES };
            room += WINDOW_BYTES;
            // A client that has sent everything may have stopped listening.
            let _ = to_client.send(Ok(any::pack(&more))).await;
        }
        let message = tokio::select! {
            message = from_client.message() => message?,
            () = chunks.closed() => return Ok(()),
        };
        let Some(message) = message else {
            // A client that cancels looks the same here, but cancels the transfer too, and what it sent has no end mark.
            let _ = chunks.send(Chunk::End).await;
            return Ok(());
        };
        let Data { data } = any::unpack(&message).map_err(status)?;
        room -= i32::try_from(data.len()).unwrap_or(i32::MAX).min(room);
        if chunks.send(Chunk::Data(data)).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends the client what comes out of `chunks`, as it has room; ends the stream when there is no more.
///
/// # Errors
/// `Cancelled` if the client is gone.
pub(super) async fn send(stream: Stream, mut chunks: mpsc::Receiver<Vec<u8>>) -> Result<(), Status> {
    let Stream { mut from_client, to_client } = stream;
    let mut room = 0_usize;
    while let Some(chunk) = chunks.recv().await {
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            while room == 0 {
                let message = from_client.message().await?.ok_or_else(gone)?;
                room = room.saturating_add(update(&message)?);
            }
            let (now, later) = rest.split_at(rest.len().min(room).min(DATA_BYTES));
            to_client.send(Ok(any::pack(&Data { data: now.to_vec() }))).await.map_err(|_| gone())?;
            room -= now.len();
            rest = later;
        }
    }
    Ok(())
}

fn update(message: &prost_types::Any) -> Result<usize, Status> {
    let WindowUpdate { update } = any::unpack(message).map_err(status)?;
    usize::try_from(update).map_err(|_| invalid(format!("a window cannot grow by {update}")))
}

fn gone() -> Status {
    Status::cancelled("the client stopped listening to its stream")
}
