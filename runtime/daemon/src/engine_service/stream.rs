//! Work that tells how far it is, for as long as somebody listens.

use runtime_engine::EngineError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::status::{status, stopping};
use crate::stop::Stop;

/// Events that wait for a slow client; progress is ten times a second and thing, so this is seconds of it.
const EVENTS_WAITING: usize = 256;

/// What a client of such work hears: events, then a last message or a status.
pub(super) type Messages<M> = ReceiverStream<Result<M, Status>>;

/// Starts `work` and answers at once; what it tells goes out as it comes, what it returns goes out last.
///
/// A client that leaves drops the work's future, which cancels it; so does a stopping daemon, with `Unavailable`.
pub(super) fn told<E, T, M, F>(
    what: &'static str,
    stop: Stop,
    work: impl FnOnce(mpsc::Sender<E>) -> F,
    event_out: fn(E) -> M,
    last_out: fn(T) -> M,
) -> Response<Messages<M>>
where
    E: Send + 'static,
    T: Send + 'static,
    M: Send + 'static,
    F: Future<Output = Result<T, EngineError>> + Send + 'static,
{
    let (client, receiver) = mpsc::channel(EVENTS_WAITING);
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
    // The work owns the sender: when it ends, so does the forwarding, after the last event.
    let work = work(sender);
    tokio::spawn(async move {
        let forwarding = async {
            while let Some(event) = events.recv().await {
                if client.send(Ok(event_out(event))).await.is_err() {
                    return;
                }
            }
        };
        let both = async { tokio::join!(work, forwarding).0 };
        let last = tokio::select! {
            done = both => done.map(last_out).map_err(status),
            () = client.closed() => {
                tracing::info!("the client of a {what} is gone: the {what} is cancelled");
                return;
            }
            () = stop.stopping() => Err(stopping()),
        };
        // A client that left at the last moment needs no last message.
        let _ = client.send(last).await;
    });
    Response::new(ReceiverStream::new(receiver))
}
