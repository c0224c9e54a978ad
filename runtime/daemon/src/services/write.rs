//! `Content.Write`: one stream writes one ingest.
//!
//! ```text
//! first message (names and locks the reference) -> STAT | WRITE ... -> COMMIT -> end
//!                                                        `-> stream ends without COMMIT: the ingest stays, for resuming
//! ```
//! A blob that another namespace has is an ingest that is complete ([`Target::Elsewhere`]): COMMIT takes it over, and what is
//! written goes behind a copy of it, as with containerd's shared policy.
//!
//! Each message is answered in turn. A message whose expected digest is here already ends the stream with
//! `AlreadyExists` and removes the ingest. Any other error ends the stream and leaves the ingest as it is.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime};

use runtime_api::containerd::services::content::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use storage_content::{ErrorKind, Expected, Ingest, LabelChange, Space, StoreError};
use storage_model::{Digest, Labels};
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

/// Bytes copied at once when a blob of another namespace is written behind.
const COPY_BYTES: usize = 1 << 20;

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
    reference: String,
    target: Target,
    expected: Expected,
}

/// What a session writes to.
enum Target {
    Ingest(Box<Ingest>),
    /// Nothing yet: another namespace has the bytes.
    Elsewhere {
        digest: Digest,
        size: u64,
        file: File,
        started: SystemTime,
    },
}

impl Writer {
    fn open(space: Space, reference: &str, expected: Expected) -> Result<Self, CallError> {
        let found =
            expected.digest.map(|digest| Ok::<_, StoreError>((digest, space.blob_elsewhere(&digest)?)));
        let target = match found.transpose()? {
            Some((digest, Some((size, file)))) if expected.size.is_none_or(|expected| expected == size) => {
                Target::Elsewhere { digest, size, file, started: SystemTime::now() }
            }
            _ => Target::Ingest(Box::new(space.ingest(reference, expected)?)),
        };
        Ok(Self { space, reference: reference.to_owned(), target, expected })
    }

    /// The ingest, made of the bytes that another namespace has if there is none yet.
    fn ingest(&mut self) -> Result<&mut Ingest, CallError> {
        if let Target::Elsewhere { file, .. } = &self.target {
            let mut ingest = self.space.ingest(&self.reference, Expected::default())?;
            ingest.truncate(0)?;
            let (mut file, mut buffer) = (file, vec![0; COPY_BYTES]);
            loop {
                match file.read(&mut buffer).map_err(|error| Status::data_loss(error.to_string()))? {
                    0 => break,
                    count => ingest.write(&buffer[..count])?,
                }
            }
            self.target = Target::Ingest(Box::new(ingest));
        }
        match &mut self.target {
            Target::Ingest(ingest) => Ok(ingest),
            Target::Elsewhere { .. } => Err(Status::internal("an ingest was just made").into()),
        }
    }

    fn offset(&self) -> u64 {
        match &self.target {
            Target::Ingest(ingest) => ingest.offset(),
            Target::Elsewhere { size, .. } => *size,
        }
    }

    /// Ends the session: the blob is the namespace's when this returns.
    fn commit(mut self, labels: Labels) -> Result<(), CallError> {
        if let Target::Elsewhere { digest, size, .. } = self.target {
            let is_it = self.expected.digest.is_none_or(|expected| expected == digest)
                && self.expected.size.is_none_or(|expected| expected == size);
            if is_it {
                return match self.space.ingest(&self.reference, Expected::exactly(digest, size)) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        let labels = labels.into_iter().map(|(key, value)| (key, Some(value))).collect();
                        self.space.set_blob_labels(&digest, LabelChange::Patch(labels))?;
                        Ok(())
                    }
                    // The other namespace has lost it meanwhile.
                    Ok(_) => {
                        Err(Status::unavailable(format!("blob {digest} is gone: send its bytes")).into())
                    }
                    Err(error) => Err(error.into()),
                };
            }
            self.ingest()?;
        }
        match self.target {
            Target::Ingest(ingest) => ingest.commit(self.expected, labels).map(|_| ()).map_err(Into::into),
            Target::Elsewhere { digest, .. } => {
                Err(Status::internal(format!("{digest} has no ingest")).into())
            }
        }
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
                self.commit(checked_labels(message.labels)?)?;
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
        if let Target::Ingest(ingest) = self.target {
            ingest.abort()?;
        }
        Err(Status::already_exists(format!("blob {digest}: already exists")).into())
    }

    /// Appends a message's bytes; offset 0 begins anew.
    fn write(&mut self, message: &WriteContentRequest) -> Result<(), CallError> {
        let here = self.offset();
        if message.offset == 0 && here > 0 {
            self.ingest()?.truncate(0)?;
        } else if message.offset != size_out(here) {
            let words = format!("cannot write at {}: the ingest has {here} bytes", message.offset);
            return Err(Status::out_of_range(words).into());
        }
        if !message.data.is_empty() {
            self.ingest()?.write(&message.data)?;
        }
        Ok(())
    }

    fn answer(&self, action: WriteAction) -> WriteContentResponse {
        let (started, updated, digest, total) = match &self.target {
            Target::Ingest(ingest) => {
                let status = ingest.status();
                (status.started, status.updated, ingest.digest(), self.expected.size.unwrap_or(0))
            }
            Target::Elsewhere { digest, size, started, .. } => (*started, *started, *digest, *size),
        };
        WriteContentResponse {
            action: action.into(),
            started_at: time_out(started),
            updated_at: time_out(updated),
            offset: size_out(self.offset()),
            total: size_out(total),
            digest: digest.to_string(),
        }
    }
}
