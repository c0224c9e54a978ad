//! Writes images into one archive: an OCI layout that docker reads too.
//!
//! `oci-layout, index.json, manifest.json, blobs/sha256/*`: documents before what they point to, blobs in the order of
//! their digests, nothing that depends on the time or the machine. The same images give the same bytes. Documents are
//! written as they are, so digests stay: an index may list platforms that the archive does not have (OCI image-layout
//! allows it, and importers take what is there).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use storage_content::{ImageRecord, Space, StoreError};
use storage_layer::tar::{Entry, EntryKind, WriteError, Writer};
use storage_model::{Descriptor, Digest, Hasher, Namespace, Reference};
use tokio::sync::mpsc::Sender;

use super::docker::Listed;
use super::{ArchiveError, docker, layout, names};
use crate::image::contents::{Contents, Wanted, is_bound};
use crate::image::resolve;
use crate::transfer::{Board, TransferEvent, TransferKind, TransferState, Transferred, TransferredImage};
use crate::work::{AfterFailure, WorkLease, Workers, blocking};
use crate::{Engine, EngineError};

/// What to write.
#[derive(Debug, Clone, Default)]
pub struct ExportRequest {
    /// The images, as [`Engine::resolve_image`] takes them.
    pub images: Vec<String>,
    /// Platforms to write, each of which must be here; empty: those that are here.
    pub platforms: Vec<String>,
    /// All platforms, each of which must be here.
    pub all_platforms: bool,
    /// Leave out docker's `manifest.json`.
    pub skip_manifest_json: bool,
    /// Leave out layers that may not be distributed.
    pub skip_non_distributable: bool,
}

/// What is written, known before the first byte is.
#[derive(Default)]
struct Plan {
    /// Entries of `index.json`.
    entries: Vec<Descriptor>,
    /// Entries of `manifest.json`.
    listed: Vec<Listed>,
    blobs: BTreeMap<Digest, Descriptor>,
    images: Vec<TransferredImage>,
}

impl Engine {
    /// Writes images into one archive on `sink`; tells of its progress through `events`.
    ///
    /// # Errors
    /// [`EngineError::Image`] if something of an image is not here, before anything was written;
    /// [`ArchiveError::Write`] if `sink` fails; [`EngineError::Store`] if a blob is damaged: the archive on `sink` is
    /// then cut off.
    ///
    /// # Cancel safety
    /// Dropping the future ends the writing soon after; the archive is cut off.
    pub async fn export(
        &self,
        namespace: &Namespace,
        request: ExportRequest,
        sink: impl Write + Send + 'static,
        events: Sender<TransferEvent>,
    ) -> Result<Transferred, EngineError> {
        let begun = Instant::now();
        let lease = WorkLease::take(self, namespace, "export", AfterFailure::Discard).await?;
        let board = Board::start(events);
        let exported = export_leased(&lease, request, sink, &board).await;
        let mut exported = lease.end(exported).await?;
        exported.seconds = begun.elapsed().as_secs_f64();
        Ok(exported)
    }
}

async fn export_leased(
    lease: &WorkLease,
    request: ExportRequest,
    sink: impl Write + Send + 'static,
    board: &Arc<Board>,
) -> Result<Transferred, EngineError> {
    let wanted = Wanted::new(&request.platforms, request.all_platforms)?;
    let mut records: Vec<ImageRecord> = Vec::with_capacity(request.images.len());
    for image in &request.images {
        let (space, image) = (lease.space.clone(), image.clone());
        let record = blocking(move || resolve::find(&space, &image)).await?;
        if records.iter().all(|known| known.name != record.name) {
            lease.keep(record.target.digest).await?;
            records.push(record);
        }
    }
    if records.is_empty() {
        return Err(ArchiveError::Empty.into());
    }
    let (space, workers, board) = (lease.space.clone(), lease.workers.clone(), board.clone());
    let working = lease.workers.begin();
    blocking(move || {
        let _working = working;
        let plan = Plan::of(&space, &records, &wanted, &request)?;
        let bytes = plan.write(&space, sink, &workers, &board)?;
        Ok(Transferred { images: plan.images, bytes, seconds: 0.0 })
    })
    .await
}

impl Plan {
    fn of(
        space: &Space,
        records: &[ImageRecord],
        wanted: &Wanted,
        request: &ExportRequest,
    ) -> Result<Self, EngineError> {
        let mut plan = Self::default();
        for record in records {
            let contents = Contents::read(space, &record.name, &record.target, wanted)?;
            let mut entry = record.target.clone();
            entry.annotations = names::annotated(&record.name, &entry);
            plan.entries.push(entry);
            let (name, digest) = (record.name.clone(), record.target.digest);
            plan.images.push(TransferredImage { name, digest, chain: None });
            let documents = contents.members.iter().map(|member| &member.descriptor);
            for document in documents.chain(contents.indexes.iter().map(|(descriptor, _)| descriptor)) {
                plan.blobs.insert(document.digest, document.clone());
            }
            for blob in contents.blobs() {
                if !(request.skip_non_distributable && is_bound(&blob)) {
                    plan.blobs.insert(blob.digest, blob);
                }
            }
            if !request.skip_manifest_json {
                plan.list(&record.name, &contents);
            }
        }
        Ok(plan)
    }

    /// Adds an image to `manifest.json`: docker knows one platform of each.
    fn list(&mut self, name: &str, contents: &Contents) {
        let Some(member) = contents.preferred() else { return };
        let config = path(&member.manifest.config.digest);
        let tag = name.parse::<Reference>().ok().filter(|reference| reference.digest().is_none());
        let tag = tag.map(|reference| reference.familiar());
        match self.listed.iter_mut().find(|listed| listed.config == config) {
            Some(listed) => listed.repo_tags.get_or_insert_default().extend(tag),
            None => self.listed.push(Listed {
                config,
                repo_tags: Some(tag.into_iter().collect()),
                layers: Some(member.manifest.layers.iter().map(|layer| path(&layer.digest)).collect()),
            }),
        }
    }

    fn write(
        &self,
        space: &Space,
        sink: impl Write,
        workers: &Workers,
        board: &Board,
    ) -> Result<u64, EngineError> {
        let mut tar = Writer::new(io::BufWriter::with_capacity(256 * 1024, sink));
        document(&mut tar, layout::LAYOUT, &layout::version_document())?;
        document(&mut tar, layout::INDEX, &layout::write_index(&self.entries)?)?;
        if !self.listed.is_empty() {
            let listed = serde_json::to_vec(&self.listed).expect("text is always JSON");
            document(&mut tar, docker::MANIFEST, &listed)?;
        }
        for directory in ["blobs", "blobs/sha256"] {
            tar.entry(&entry(directory, EntryKind::Directory, 0o755, 0)).map_err(ArchiveError::Write)?;
        }
        for (digest, descriptor) in &self.blobs {
            let item = board.item(digest.to_string(), TransferKind::of(descriptor), descriptor.size);
            item.set(TransferState::Writing);
            let size = space.blob(digest)?.size;
            let source = workers.stoppable(space.open_blob(digest)?);
            let mut source = Verified { source, hasher: Hasher::new(), item: &item };
            let written = tar.file(&entry(&path(digest), EntryKind::File, 0o444, size), &mut source);
            written.map_err(called_off)?;
            let actual = source.hasher.finish();
            if actual != *digest {
                return Err(StoreError::DigestMismatch { expected: *digest, actual }.into());
            }
            item.set(TransferState::Done);
        }
        let bytes = tar.offset();
        let mut sink = tar.finish().map_err(ArchiveError::Write)?;
        sink.flush().map_err(|source| ArchiveError::Write(WriteError::Output(source)))?;
        Ok(bytes)
    }
}

/// The reader of a blob fails when the export was called off; everything else is its own cause.
fn called_off(error: WriteError) -> EngineError {
    match &error {
        WriteError::Content { source, .. } if source.kind() == io::ErrorKind::ConnectionAborted => {
            EngineError::CalledOff
        }
        _ => ArchiveError::Write(error).into(),
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn document(tar: &mut Writer<impl Write>, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    let entry = entry(name, EntryKind::File, 0o644, bytes.len() as u64);
    tar.file(&entry, bytes).map_err(ArchiveError::Write)
}

fn entry(name: &str, kind: EntryKind, mode: u32, size: u64) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: storage_sys::tree::Timestamp { seconds: 0, nanoseconds: 0 },
        atime: None,
        xattrs: Vec::new(),
        size,
    }
}

/// A blob whose bytes are hashed as they pass.
struct Verified<'a, R> {
    source: R,
    hasher: Hasher,
    item: &'a crate::transfer::Item,
}

impl<R: Read> Read for Verified<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.item.add(read as u64);
        Ok(read)
    }
}
