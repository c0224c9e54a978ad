//! Accepting connections, for as long as the daemon lives.
//!
//! An error of `accept` never ends the loop: a process that is out of descriptors waits until some are free again, and a
//! connection that vanished is forgotten. (Servers that end there were taken down by one busy client:
//! RUSTSEC-2024-0376.)

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// First pause after an error, in milliseconds; it doubles with each further one.
const PAUSE_MS_MIN: u64 = 5;

/// Longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 1000;

/// The connections of `listener`, without end. Accepting stops when the stream is dropped.
pub(crate) fn connections(listener: UnixListener) -> ReceiverStream<io::Result<UnixStream>> {
    let listener = Arc::new(listener);
    stream(move || {
        let listener = Arc::clone(&listener);
        async move { listener.accept().await.map(|(connection, _)| connection) }
    })
}

fn stream<C, F, A>(mut accept: A) -> ReceiverStream<io::Result<C>>
where
    C: Send + 'static,
    F: Future<Output = io::Result<C>> + Send,
    A: FnMut() -> F + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pause_ms = PAUSE_MS_MIN;
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(connection) => {
                    pause_ms = PAUSE_MS_MIN;
                    if sender.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms, "cannot accept a connection: trying again");
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn vuln_d5_running_out_of_descriptors_pauses_the_loop_and_never_ends_it() {
        /// `EMFILE` of errno(3), the same on every Linux.
        const EMFILE: i32 = 24;
        let mut calls = 0;
        let mut connections = stream(move || {
            calls += 1;
            let call = calls;
            async move {
                match call {
                    1..=20 => Err(io::Error::from_raw_os_error(EMFILE)),
                    21 => Err(io::ErrorKind::ConnectionAborted.into()),
                    22 => Ok("a connection"),
                    _ => std::future::pending().await,
                }
            }
        });
        let begun = tokio::time::Instant::now();
        assert_eq!(connections.next().await.unwrap().unwrap(), "a connection");
        let waited = begun.elapsed();
        assert!(waited > Duration::from_secs(5), "it did not pause: {waited:?}");
        assert!(waited < Duration::from_secs(30), "it paused too long: {waited:?}");
    }

    #[tokio::test]
    async fn dropping_the_stream_ends_the_loop() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let connections = connections(UnixListener::bind(&path).unwrap());
        drop(connections);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(UnixStream::connect(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
