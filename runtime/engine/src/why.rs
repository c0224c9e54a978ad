//! Why something is here: what was meant, and what keeps it.

use std::ops::ControlFlow;

use storage_content::{ErrorKind, KeeperChain, Space, Thing};
use storage_model::Namespace;

use crate::image::resolve::hex_prefix;
use crate::{Engine, EngineError};

/// What is asked about.
#[derive(Debug, Clone, Default)]
pub struct WhyRequest {
    /// Digest of a blob or the beginning of one, key of a snapshot, name of an image, reference of an ingest.
    pub name: String,
    /// `blob`, `snapshot`, `image` or `ingest`; empty: whatever has that name.
    pub kind: String,
    /// Snapshotter of the snapshot; empty: any.
    pub snapshotter: String,
}

/// A thing and what keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The thing.
    pub thing: Thing,
    /// From each thing that keeps without being kept, the shortest way down to it. None: the next collection removes it.
    pub chains: Vec<KeeperChain>,
}

impl Engine {
    /// Says what keeps each thing that `request` may mean.
    ///
    /// # Errors
    /// [`EngineError::UnknownKind`] if the kind is none; [`EngineError::NothingCalled`] if nothing has that name;
    /// [`EngineError::Store`] if the metadata cannot be read.
    pub fn why(&self, namespace: &Namespace, request: &WhyRequest) -> Result<Vec<Kept>, EngineError> {
        let space = self.space(namespace);
        let mut things = Vec::new();
        for (kind, find) in FINDERS {
            if request.kind.is_empty() || request.kind == *kind {
                things.extend(find(self, &space, request)?);
            }
        }
        if !request.kind.is_empty() && FINDERS.iter().all(|(kind, _)| request.kind != *kind) {
            return Err(EngineError::UnknownKind { kind: request.kind.chars().take(64).collect() });
        }
        if things.is_empty() {
            let (name, namespace) = (request.name.chars().take(512).collect(), namespace.to_string());
            return Err(EngineError::NothingCalled { name, namespace });
        }
        let mut kept = Vec::new();
        for thing in things {
            let chains = space.why(&thing)?;
            kept.push(Kept { thing, chains });
        }
        Ok(kept)
    }
}

type Finder = fn(&Engine, &Space, &WhyRequest) -> Result<Vec<Thing>, EngineError>;

/// How things of each kind are found.
const FINDERS: &[(&str, Finder)] =
    &[("image", image), ("blob", blobs), ("snapshot", snapshots), ("ingest", ingest)];

fn image(engine: &Engine, space: &Space, request: &WhyRequest) -> Result<Vec<Thing>, EngineError> {
    match engine.resolve_image(space.namespace(), &request.name) {
        Ok(record) => Ok(vec![Thing::Image(record.name)]),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Whether `digest` begins with the hex digits that the text is, if it is nothing else.
fn begins(digest: &str, text: &str) -> bool {
    hex_prefix(text)
        .is_some_and(|hex| digest.strip_prefix("sha256:").is_some_and(|whole| whole.starts_with(hex)))
}

fn blobs(_: &Engine, space: &Space, request: &WhyRequest) -> Result<Vec<Thing>, EngineError> {
    let mut found = Vec::new();
    space.blobs(&mut |blob| {
        if begins(&blob.digest.to_string(), &request.name) {
            found.push(Thing::Blob(blob.digest));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn snapshots(engine: &Engine, space: &Space, request: &WhyRequest) -> Result<Vec<Thing>, EngineError> {
    let mut found = Vec::new();
    for name in engine.snapshotters() {
        if !request.snapshotter.is_empty() && request.snapshotter != name {
            continue;
        }
        space.snapshots(name).walk(&mut |record| {
            if record.key == request.name || begins(&record.key, &request.name) {
                found.push(Thing::snapshot(name, record.key));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

fn ingest(_: &Engine, space: &Space, request: &WhyRequest) -> Result<Vec<Thing>, EngineError> {
    match space.ingest_status(&request.name) {
        Ok(_) => Ok(vec![Thing::Ingest(request.name.clone())]),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}
