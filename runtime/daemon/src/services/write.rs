//! `Content.Write`: one stream writes one ingest.
//!
//! ```text
//! first message (names and locks the reference) -> STAT | WRITE ... -> COMMIT -> end
//!                                                        `-> stream ends without COMMIT: the ingest stays, for resuming
//! ```
//! Each message is answered in turn. A message whose expected digest is here already ends the stream with
//! `AlreadyExists` and removes the ingest. Any other error ends the stream and leaves the ingest as it is.

use std::time::{Duration, Instant};

use runtime_api::containerd::services::content::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use storage_content::{Expected, Ingest, Space};
use storage_model::Digest;
use tokio::sync::mpsc::Sender;
use tonic::{Code, Status, Streaming};

use crate::call::{CallError, blocking};
use crate::convert::{checked_labels, size_out, time_out};
use crate::status::{invalid, status, stopping};
use crate::stop::Stop;

/// How long a session waits for a reference that has a writer.
///
/// A client that closes one stream and opens the next gets no answer to the first: we may hear of the new one sooner. Go's
/// clients do so on every resume. Longer than a busy machine takes to notice, shorter
/// than anybody who waits for the answer `Unavailable` minds.
const LEAVING: Duration = Duration::from_millis(100);

/// Between two looks whether it has left.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs a session to its end; errors go to the client.
pub(super) async fn session(
    space: Space,
    messages: Streaming<WriteContentRequest>,
    answers: Sender<Result<WriteContentResponse, Status>>,
    stop: Stop,
) {
    if let Err(error) = converse(space, messages, &answers, &stop).await {
        // A client that is gone needs no answer.
        let _ = answers.send(Err(error)).await;
    }
}

async fn converse(
    space: Space,
    mut messages: Streaming<WriteContentRequest>,
    answers: &Sender<Result<WriteContentResponse, Status>>,
    stop: &Stop,
) -> Result<(), Status> {
    let Some(mut message) = next(&mut messages, stop).await? else { return Ok(()) };
    if message.r#ref.is_empty() {
        return Err(invalid("the first message must have a reference"));
    }
    let (reference, expected) = (message.r#ref.clone(), expected(&message)?);
    let mut writer = open(space, reference, expected).await?;
    loop {
        let (rest, answer) = blocking(move || writer.step(message)).await?;
        let Ok(()) = answers.send(Ok(answer)).await else { return Ok(()) };
        let Some(rest) = rest else { return Ok(()) };
        writer = rest;
        match next(&mut messages, stop).await? {
            Some(more) => message = more,
            None => return Ok(()),
        }
    }
}

/// Opens the ingest, waiting a moment for a writer that is just leaving.
async fn open(space: Space, reference: String, expected: Expected) -> Result<Writer, Status> {
    let deadline = Instant::now() + LEAVING;
    loop {
        let (space, reference) = (space.clone(), reference.clone());
        match blocking(move || Writer::open(space, &reference, expected)).await {
            Err(busy) if busy.code() == Code::Unavailable && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

async fn next(
    messages: &mut Streaming<WriteContentRequest>,
    stop: &Stop,
) -> Result<Option<WriteContentRequest>, Status> {
    tokio::select! {
        () = stop.stopping() => Err(stopping()),
        message = messages.message() => message,
    }
}

/// What a message says of the whole.
fn expected(message: &WriteContentRequest) -> Result<Expected, Status> {
    let digest = match message.expected.as_str() {
        "" => None,
        text => Some(text.parse().map_err(status)?),
    };
    Ok(Expected { digest, size: u64::try_from(message.total).ok().filter(|size| *size > 0) })
}

/// A session's ingest and what the client expects of it.
struct Writer {
    space: Space,
    ingest: Ingest,
    expected: Expected,
}

impl Writer {
    fn open(space: Space, reference: &str, expected: Expected) -> Result<Self, CallError> {
        let ingest = space.ingest(reference, expected)?;
        Ok(Self { space, ingest, expected })
    }

    /// Does what one message asks; no writer is left after COMMIT.
    fn step(
        mut self,
        message: WriteContentRequest,
    ) -> Result<(Option<Self>, WriteContentResponse), CallError> {
        let news = expected(&message)?;
        if let Some(digest) = news.digest {
            self = self.unless_here(&digest)?;
        }
        self.expected =
            Expected { digest: news.digest.or(self.expected.digest), size: news.size.or(self.expected.size) };
        match message.action() {
            WriteAction::Stat if message.action == WriteAction::Stat as i32 => {}
            WriteAction::Stat => return Err(invalid(format!("unknown action {}", message.action)).into()),
            WriteAction::Write => self.write(&message)?,
            WriteAction::Commit => {
                self.write(&message)?;
                let answer = self.answer(WriteAction::Commit);
                self.ingest.commit(self.expected, checked_labels(message.labels)?)?;
                return Ok((None, answer));
            }
        }
        let answer = self.answer(message.action());
        Ok((Some(self), answer))
    }

    /// Ends the ingest if the namespace has what it would become.
    fn unless_here(self, digest: &Digest) -> Result<Self, CallError> {
        match self.space.blob(digest) {
            Err(error) if error.is_not_found() => return Ok(self),
            found => found?,
        };
        if self.space.lease_id().is_some() {
            self.space.pin_blob(digest)?;
        }
        self.ingest.abort()?;
        Err(Status::already_exists(format!("blob {digest}: already exists")).into())
    }

    /// Appends a message's bytes; offset 0 begins anew.
    fn write(&mut self, message: &WriteContentRequest) -> Result<(), CallError> {
        let here = self.ingest.offset();
        if message.offset == 0 && here > 0 {
            self.ingest.truncate(0)?;
        } else if message.offset != size_out(here) {
            let words = format!("cannot write at {}: the ingest has {here} bytes", message.offset);
            return Err(Status::out_of_range(words).into());
        }
        if !message.data.is_empty() {
            self.ingest.write(&message.data)?;
        }
        Ok(())
    }

    fn answer(&self, action: WriteAction) -> WriteContentResponse {
        let status = self.ingest.status();
        WriteContentResponse {
            action: action.into(),
            started_at: time_out(status.started),
            updated_at: time_out(status.updated),
            offset: size_out(status.offset),
            total: size_out(self.expected.size.unwrap_or(0)),
            digest: self.ingest.digest().to_string(),
        }
    }
}
