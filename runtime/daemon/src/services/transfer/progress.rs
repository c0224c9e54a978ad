//! Progress of a transfer in containerd's words: what `ctr` draws as a tree.
//!
//! A line is told by its name (`layer-sha256:...`, as containerd names ingests) and hangs below its parents; a line
//! without a name is the headline.

use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::types::Descriptor;
use runtime_api::containerd::types::transfer::Progress;
use runtime_engine::{LayerState, PullEvent, TransferEvent, TransferState};
use storage_model::Digest;
use tokio::sync::mpsc;
use tonic::Status;

use crate::convert::size_out;
use crate::streams::Stream;

/// Where progress goes: a client's stream, or nowhere.
#[derive(Debug)]
pub(super) struct Listener {
    client: Option<mpsc::Sender<Result<Any, Status>>>,
    /// What all that has no nearer parent hangs below: the image's name.
    root: String,
    /// Line of the manifest, once it is known.
    manifest: Option<String>,
}

impl Listener {
    pub(super) fn new(stream: Option<Stream>, root: &str) -> Self {
        Self { client: stream.map(|stream| stream.to_client), root: root.to_owned(), manifest: None }
    }

    /// A new headline.
    pub(super) async fn headline(&self, words: impl Into<String>) {
        self.send(Progress { event: words.into(), ..Default::default() }).await;
    }

    /// The image's own line.
    pub(super) async fn image(&self, name: &str, event: &str, target: Option<Digest>) {
        let desc = target.map(|digest| Descriptor { digest: digest.to_string(), ..Default::default() });
        self.send(Progress { event: event.to_owned(), name: name.to_owned(), desc, ..Default::default() })
            .await;
    }

    /// What a pull tells.
    pub(super) async fn pull(&mut self, event: PullEvent) {
        match event {
            PullEvent::Resolved { digest, layers, .. } => {
                let manifest = format!("manifest-{digest}");
                self.line(&manifest, &self.root, "complete", 0, 0, digest).await;
                for (layer, size) in layers {
                    self.line(&format!("layer-{layer}"), &manifest, "waiting", 0, size, layer).await;
                }
                self.manifest = Some(manifest);
            }
            PullEvent::Layer { digest, state, received_bytes, total_bytes, .. } => {
                let (event, done) = match state {
                    LayerState::Waiting => ("waiting", 0),
                    LayerState::Downloading => ("downloading", received_bytes),
                    LayerState::Unpacking => ("extracting", received_bytes),
                    LayerState::Done => ("complete", total_bytes),
                    LayerState::Exists => ("already exists", total_bytes),
                };
                let parent = self.manifest.as_deref().unwrap_or(&self.root);
                self.line(&format!("layer-{digest}"), parent, event, done, total_bytes, digest).await;
            }
            PullEvent::Message(words) => self.headline(words).await,
        }
    }

    /// What a push, an import or an export tells.
    pub(super) async fn transfer(&self, event: TransferEvent) {
        match event {
            TransferEvent::Progress { name, kind, state, done_bytes, total_bytes } => {
                let event = match state {
                    TransferState::Exists => "already exists",
                    TransferState::Done => "complete",
                    TransferState::Unpacking => "extracting",
                    // Drawn with a bar, as the bytes that come in are.
                    TransferState::Reading => "downloading",
                    other => other.as_str(),
                };
                let digest = name.parse::<Digest>();
                let line = if digest.is_ok() { format!("{}-{name}", kind.as_str()) } else { name };
                let desc = digest.ok().map(|digest| Descriptor {
                    digest: digest.to_string(),
                    size: size_out(total_bytes),
                    ..Default::default()
                });
                self.send(Progress {
                    event: event.to_owned(),
                    name: line,
                    parents: vec![self.root.clone()],
                    progress: size_out(done_bytes),
                    total: size_out(total_bytes),
                    desc,
                })
                .await;
            }
            TransferEvent::Message(words) => self.headline(words).await,
        }
    }

    async fn line(&self, name: &str, parent: &str, event: &str, done: u64, total: u64, digest: Digest) {
        let desc = Descriptor { digest: digest.to_string(), size: size_out(total), ..Default::default() };
        self.send(Progress {
            event: event.to_owned(),
            name: name.to_owned(),
            parents: vec![parent.to_owned()],
            progress: size_out(done),
            total: size_out(total),
            desc: Some(desc),
        })
        .await;
    }

    async fn send(&self, progress: Progress) {
        let Some(client) = &self.client else { return };
        // Who does not listen wants the image all the same.
        let _ = client.send(Ok(any::pack(&progress))).await;
    }
}
