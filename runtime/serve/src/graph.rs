//! What images reach: documents and what they point to.
//!
//! A document never changes under its digest, so what was read of it is kept. Whether its content is still here is
//! asked anew each time, and what is reached from where follows from the images of the moment.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use storage_model::{Descriptor, Digest, Document, limits, media};
use tokio_stream::StreamExt as _;

use crate::backend::{Backend, BackendError};

/// Documents kept; a full table is emptied, which costs a read each.
const NODES_MAX: usize = 4096;
/// Documents of one repository that one question walks over.
const WALK_MAX: usize = 16 * 1024;

/// What one document says.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// What it points to.
    pub(crate) children: Vec<Descriptor>,
    /// What it is about.
    pub(crate) subject: Option<Digest>,
    /// Its own `artifactType`, or what stands for it.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The documents known so far.
#[derive(Default)]
pub(crate) struct Graph {
    /// By digest, and by the type it was called: whoever calls it another thing must not change what others see.
    nodes: Mutex<HashMap<(Digest, String), Arc<Node>>>,
}

/// The fields that say what a document is about (image-spec, `manifest.md` and `image-index.md`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Node {
    /// Reads a document. One that makes no sense points nowhere: it is served as it is, and leads to nothing.
    fn parse(media_type: &str, bytes: &[u8]) -> Self {
        let Ok(document) = Document::parse(media_type, bytes) else { return Self::default() };
        let children = document.children().into_iter().cloned().collect();
        let Ok(about) = serde_json::from_slice::<About>(bytes) else {
            return Self { children, ..Self::default() };
        };
        Self {
            children,
            subject: about.subject.map(|subject| subject.digest),
            artifact_type: about.artifact_type.or(about.config.map(|config| config.media_type)),
            annotations: about.annotations.unwrap_or_default(),
        }
    }
}

/// The document `digest`, proved, if it is here.
///
/// # Errors
/// [`BackendError::Damaged`] if its bytes are others; [`BackendError::Nonsense`] if it is longer than a document may be.
pub(crate) async fn document<B: Backend>(
    backend: &B,
    digest: &Digest,
) -> Result<Option<Bytes>, BackendError> {
    let Some(size) = backend.size(digest).await? else { return Ok(None) };
    if size > limits::MANIFEST_BYTES_MAX {
        return Err(BackendError::Nonsense("a document larger than documents may be"));
    }
    let Some(mut content) = backend.read(digest, 0, size).await? else { return Ok(None) };
    let mut whole = BytesMut::new();
    while let Some(part) = content.next().await {
        let part = part?;
        if (whole.len() + part.len()) as u64 > size {
            return Err(BackendError::Nonsense("more bytes than were asked for"));
        }
        whole.extend_from_slice(&part);
    }
    let actual = Digest::of(&whole);
    if actual != *digest {
        return Err(BackendError::Damaged { expected: *digest, actual });
    }
    Ok(Some(whole.freeze()))
}

impl Graph {
    /// What the document of `descriptor` says, if it is here.
    async fn node<B: Backend>(
        &self,
        backend: &B,
        descriptor: &Descriptor,
    ) -> Result<Option<Arc<Node>>, BackendError> {
        let key = (descriptor.digest, descriptor.media_type.clone());
        let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let bytes = match document(backend, &descriptor.digest).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            // It reaches nothing; whoever asks for it is told.
            Err(error @ (BackendError::Damaged { .. } | BackendError::Nonsense(_))) => {
                tracing::warn!(digest = %descriptor.digest, %error, "a document cannot be read");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let node = Arc::new(Node::parse(&descriptor.media_type, &bytes));
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= NODES_MAX {
            nodes.clear();
        }
        nodes.insert(key, Arc::clone(&node));
        Ok(Some(node))
    }

    /// The descriptor by which `wanted` is reached from `roots`, if it is. Its content need not be here.
    pub(crate) async fn find<B: Backend>(
        &self,
        backend: &B,
        roots: &[Descriptor],
        wanted: &Digest,
    ) -> Result<Option<Descriptor>, BackendError> {
        let mut found = None;
        self.walk(backend, roots, |descriptor, _| {
            if descriptor.digest == *wanted {
                found = Some(descriptor.clone());
            }
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    /// Visits what `roots` reach, nearest first, each once, with what it says if it is a document and here; until
    /// `visit` gives false.
    pub(crate) async fn walk<B: Backend>(
        &self,
        backend: &B,
        roots: &[Descriptor],
        mut visit: impl FnMut(&Descriptor, Option<&Node>) -> bool + Send,
    ) -> Result<(), BackendError> {
        let mut queue: VecDeque<Descriptor> = roots.iter().cloned().collect();
        let mut seen = HashSet::new();
        let mut documents = 0;
        while let Some(descriptor) = queue.pop_front() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            let media_type = &descriptor.media_type;
            if !media::is_index(media_type) && !media::is_manifest(media_type) {
                if !visit(&descriptor, None) {
                    return Ok(());
                }
                continue;
            }
            documents += 1;
            if documents > WALK_MAX {
                tracing::warn!(documents, "a repository has more documents than are looked at");
                return Ok(());
            }
            let node = self.node(backend, &descriptor).await?;
            if !visit(&descriptor, node.as_deref()) {
                return Ok(());
            }
            queue.extend(node.iter().flat_map(|node| node.children.iter().cloned()));
        }
        Ok(())
    }
}
