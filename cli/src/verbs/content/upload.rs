//! Bytes into the content store: `content ingest`, and what `content edit` made.
//!
//! `status -> skip what is there -> write* -> commit`. With an expected digest an ingest that was interrupted goes on where it
//! stopped: other bytes than the first time cannot go unnoticed then. Without one it begins again. Bytes are hashed here too,
//! so that content that turns out to be here already can be named.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Read};

use prost_types::FieldMask;
use runtime_api::containerd::services::content::v1::{
    Info, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use storage_model::{Digest, Hasher};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::args::IngestArgs;
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt;
use crate::output;
use crate::verbs::{kept, label_map};

/// Bytes in one message.
const PART_BYTES: usize = 1024 * 1024;

/// Messages read ahead of the engine.
const PARTS_WAITING: usize = 4;

/// `content ingest`: prints the digest.
///
/// # Errors
/// [`CliError`]; after Ctrl-C what has arrived stays, and the same command goes on from there.
pub(super) async fn ingest(client: &Client, args: &IngestArgs) -> Result<(), CliError> {
    if io::stdin().is_terminal() {
        return Err(CliError::TerminalInput("content"));
    }
    let labels = label_map(&args.label);
    let labels = if args.keep { kept(labels) } else { labels };
    let upload = Upload {
        reference: args.reference.clone(),
        total: args.expected_size,
        expected: args.expected_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        labels,
    };
    let digest = interrupt::or_interrupted(upload.send(client, io::stdin())).await?;
    output::print(&format!("{digest}\n"))
}

/// What is stored, and as what.
pub(super) struct Upload {
    /// Name of the ingest.
    pub(super) reference: String,
    /// Bytes there shall be.
    pub(super) total: Option<u64>,
    /// Digest it shall have; empty: whatever it has.
    pub(super) expected: String,
    /// Labels of the content.
    pub(super) labels: HashMap<String, String>,
}

impl Upload {
    /// Stores what `input` gives and returns its digest. Content that is here already is not stored twice, but gets the labels.
    ///
    /// # Errors
    /// [`CliError::Engine`] with the engine's answer, [`CliError::File`] when the input cannot be read: then the ingest
    /// stays as far as it came.
    pub(super) async fn send(
        self,
        client: &Client,
        input: impl Read + Send + 'static,
    ) -> Result<String, CliError> {
        let what = format!("ingest {}", self.reference);
        let offset = match self.expected.as_str() {
            "" => 0,
            _ => self.offset(client).await.map_err(failed(&*what))?,
        };
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let (end, mut at_end) = oneshot::channel();
        let template = self.template();
        std::thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || feed(input, offset, &template, &sender, end))
            .map_err(|source| CliError::Process("a thread", source))?;
        let call = async {
            let answers = client.content().write(ReceiverStream::new(receiver)).await?;
            last(answers.into_inner()).await
        };
        tokio::pin!(call);
        let mut read = None;
        let outcome = tokio::select! {
            biased;
            outcome = &mut call => outcome,
            Ok(end) = &mut at_end => {
                read = Some(end.map_err(unreadable)?);
                call.await
            }
        };
        let is_new = match &outcome {
            Ok(_) => true,
            Err(status) if status.code() == Code::AlreadyExists => false,
            Err(_) => return outcome.map_err(failed(what)),
        };
        // The engine may have answered before it had the input: whether that is the same content is still to be seen.
        let given = match read {
            Some(given) => given,
            None => match at_end.await {
                Ok(end) => end.map_err(unreadable)?,
                Err(_) => return outcome.map_err(failed(what)),
            },
        };
        if !self.expected.is_empty() && self.expected != given.to_string() {
            return Err(CliError::OtherContent { expected: self.expected, actual: given });
        }
        if !is_new {
            self.label(client, &given.to_string()).await?;
        }
        Ok(given.to_string())
    }

    /// What all messages have in common.
    fn template(&self) -> WriteContentRequest {
        WriteContentRequest {
            r#ref: self.reference.clone(),
            total: self.total.map_or(0, |total| i64::try_from(total).unwrap_or(i64::MAX)),
            expected: self.expected.clone(),
            labels: self.labels.clone(),
            ..WriteContentRequest::default()
        }
    }

    /// Bytes of this ingest that an earlier try has left.
    async fn offset(&self, client: &Client) -> Result<u64, Status> {
        match client.content().status(StatusRequest { r#ref: self.reference.clone() }).await {
            Ok(answer) => {
                let offset = answer.into_inner().status.unwrap_or_default().offset;
                Ok(u64::try_from(offset).unwrap_or(0))
            }
            Err(status) if status.code() == Code::NotFound => Ok(0),
            Err(status) => Err(status),
        }
    }

    async fn label(&self, client: &Client, digest: &str) -> Result<(), CliError> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let paths = self.labels.keys().map(|name| format!("labels.{name}")).collect();
        let info = Some(Info { digest: digest.to_owned(), labels: self.labels.clone(), ..Info::default() });
        let request = UpdateRequest { info, update_mask: Some(FieldMask { paths }) };
        client.content().update(request).await.map_err(failed(format!("label {digest}")))?;
        Ok(())
    }
}

/// Sends the bytes from `offset` on, then the commit; tells the digest of all of them just before that, or why they could not
/// be read: then the stream is held open, because its end is no commit but looks like one to a reader of logs.
fn feed(
    mut input: impl Read,
    offset: u64,
    template: &WriteContentRequest,
    parts: &mpsc::Sender<WriteContentRequest>,
    end: oneshot::Sender<io::Result<Digest>>,
) {
    let mut hasher = Hasher::new();
    let mut at: u64 = 0;
    let mut is_taken = true;
    loop {
        let mut data = vec![0; PART_BYTES];
        match input.read(&mut data) {
            Ok(0) => break,
            Ok(count) => {
                data.truncate(count);
                hasher.update(&data);
                let start = at;
                at += count as u64;
                // What is there already is hashed and not sent.
                let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(count).min(count);
                // Bytes that nobody takes any more are hashed all the same: it may be here already.
                is_taken = is_taken
                    && (skip == count || {
                        let part = write(template, start + skip as u64, data.split_off(skip));
                        parts.blocking_send(part).is_ok()
                    });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if end.send(Err(error)).is_ok() {
                    std::thread::park();
                }
                return;
            }
        }
    }
    // Nobody waits for it when the engine has given up already.
    let _ = end.send(Ok(hasher.finish()));
    let commit =
        WriteContentRequest { action: WriteAction::Commit.into(), ..write(template, at, Vec::new()) };
    let _ = parts.blocking_send(commit);
}

fn write(template: &WriteContentRequest, offset: u64, data: Vec<u8>) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Write.into(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        data: data.into(),
        ..template.clone()
    }
}

fn unreadable(source: io::Error) -> CliError {
    CliError::File { what: "read", path: "standard input".into(), source }
}

/// The digest in the answer to the commit.
async fn last(mut answers: Streaming<WriteContentResponse>) -> Result<String, Status> {
    while let Some(answer) = answers.message().await? {
        if answer.action() == WriteAction::Commit {
            return Ok(answer.digest);
        }
    }
    Err(Status::internal("the stream of answers ended without a result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(input: &'static [u8], offset: u64) -> (Vec<WriteContentRequest>, Digest) {
        let (sender, mut receiver) = mpsc::channel(16);
        let (end, mut at_end) = oneshot::channel();
        feed(input, offset, &WriteContentRequest::default(), &sender, end);
        drop(sender);
        let mut parts = Vec::new();
        while let Ok(part) = receiver.try_recv() {
            parts.push(part);
        }
        (parts, at_end.try_recv().unwrap().unwrap())
    }

    #[test]
    fn what_is_there_already_is_hashed_and_not_sent() {
        let (parts, digest) = sent(b"hello world", 6);
        assert_eq!(digest, Digest::of(b"hello world"));
        assert_eq!((parts[0].offset, parts[0].data.as_ref()), (6, &b"world"[..]));
        assert_eq!((parts[1].offset, parts[1].action()), (11, WriteAction::Commit));
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn nothing_is_content_too() {
        let (parts, digest) = sent(b"", 0);
        assert_eq!((parts.len(), parts[0].action()), (1, WriteAction::Commit));
        assert_eq!(digest, Digest::of(b""));
    }
}
