//! Documents of images in the store: read whole, verified again, parsed; and the labels that keep what they point to.

use std::io::Read;
use std::path::Path;

use storage_content::{ErrorKind, Expected, LabelChange, Space, StoreError};
use storage_model::{ChainId, Descriptor, Digest, Document, Labels, limits};

use super::ImageError;
use crate::EngineError;

/// Prefix of labels that keep blobs (containerd's garbage collection labels).
const KEEPS_CONTENT: &str = "containerd.io/gc.ref.content.";
/// Prefix of labels that keep snapshots; the snapshotter's name follows.
const KEEPS_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// Reads and parses the manifest or index `descriptor` of the image `name`.
///
/// # Errors
/// [`ImageError::Absent`] if it is not here; [`EngineError::Document`] if it is none; [`EngineError::Store`].
pub(crate) fn document(space: &Space, name: &str, descriptor: &Descriptor) -> Result<Document, EngineError> {
    parse(name, descriptor, &bytes(space, name, descriptor)?)
}

/// Reads the bytes of the manifest or index `descriptor` of the image `name`.
///
/// # Errors
/// [`ImageError::Absent`] if it is not here; [`EngineError::Store`].
pub(crate) fn bytes(space: &Space, name: &str, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
    read_blob(space, name, "manifest", descriptor, limits::MANIFEST_BYTES_MAX)
}

/// Parses a manifest or index that is at hand.
///
/// # Errors
/// [`EngineError::Document`].
pub(crate) fn parse(name: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, EngineError> {
    Document::parse(&descriptor.media_type, bytes).map_err(|source| EngineError::Document {
        reference: name.to_owned(),
        digest: descriptor.digest,
        source,
    })
}

/// Reads the config `descriptor` of the image `name`.
///
/// # Errors
/// [`ImageError::Absent`] if it is not here; [`EngineError::Store`].
pub(crate) fn config(space: &Space, name: &str, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
    read_blob(space, name, "config", descriptor, limits::CONFIG_BYTES_MAX)
}

/// A small blob, whole and verified again: documents decide what runs.
fn read_blob(
    space: &Space,
    name: &str,
    what: &'static str,
    descriptor: &Descriptor,
    bytes_max: u64,
) -> Result<Vec<u8>, EngineError> {
    let digest = descriptor.digest;
    let file = match space.open_blob(&digest) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ImageError::Absent { name: name.to_owned(), what, digest }.into());
        }
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| EngineError::io("read the blob", Path::new(&digest.to_string()), source))?;
    if bytes.len() as u64 > bytes_max {
        return Err(ImageError::DocumentSize { name: name.to_owned(), what, digest, bytes_max }.into());
    }
    let actual = Digest::of(&bytes);
    if actual == digest {
        Ok(bytes)
    } else {
        Err(StoreError::DigestMismatch { expected: digest, actual }.into())
    }
}

/// The labels with which a document keeps what it points to, as far as `kept` says so.
pub(crate) fn keeps(document: &Document, kept: impl Fn(&Descriptor) -> bool) -> Labels {
    let label =
        |kind: String, child: &Descriptor| (format!("{KEEPS_CONTENT}{kind}"), child.digest.to_string());
    match document {
        Document::Index(index) => {
            let children = index.manifests.iter().enumerate().filter(|(_, child)| kept(child));
            children.map(|(number, child)| label(format!("m.{number}"), child)).collect()
        }
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().enumerate().filter(|(_, child)| kept(child));
            std::iter::once(label("config".to_owned(), &manifest.config))
                .chain(layers.map(|(number, child)| label(format!("l.{number}"), child)))
                .collect()
        }
    }
}

/// The label with which a config keeps its unpacked tree.
pub(crate) fn keeps_snapshot(snapshotter: &str, chain: &ChainId) -> (String, String) {
    (format!("{KEEPS_SNAPSHOT}{snapshotter}"), chain.to_string())
}

/// Stores a document with `labels`; one that is here already gets these labels besides its own.
///
/// # Errors
/// [`EngineError::Store`]; nothing half-written is left.
pub(crate) fn store_small(
    space: &Space,
    descriptor: &Descriptor,
    bytes: &[u8],
    labels: Labels,
) -> Result<(), EngineError> {
    let expected = Expected::exactly(descriptor.digest, descriptor.size);
    match space.ingest(&format!("document-{}", descriptor.digest), expected) {
        Ok(mut ingest) => {
            ingest.truncate(0)?;
            ingest.write(bytes)?;
            match ingest.commit(expected, labels.clone()) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    add_labels(space, &descriptor.digest, labels)
                }
                Err(error) => Err(error.into()),
            }
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            add_labels(space, &descriptor.digest, labels)
        }
        // Another operation is writing the very same bytes; its record and ours would be equal.
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a blob labels besides those it has; costs nothing where it has them all.
///
/// # Errors
/// [`EngineError::Store`] if the namespace does not have the blob, or a label is too long.
pub(crate) fn add_labels(space: &Space, digest: &Digest, labels: Labels) -> Result<(), EngineError> {
    let before = space.blob(digest)?.labels;
    let new: std::collections::BTreeMap<_, _> = labels
        .into_iter()
        .filter(|(key, value)| before.get(key) != Some(value))
        .map(|(key, value)| (key, Some(value)))
        .collect();
    if !new.is_empty() {
        space.set_blob_labels(digest, LabelChange::Patch(new))?;
    }
    Ok(())
}
