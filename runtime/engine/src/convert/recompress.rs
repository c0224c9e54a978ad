//! Layers in another compression: the same tars, proved by their diff IDs, several at a time.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use storage_content::{ErrorKind, Expected, Ingest, Space, StoreError};
use storage_model::{Compression, Descriptor, DiffId, Labels, LayerKind, media};
use tokio::task::JoinSet;

use super::documents::typed;
use crate::EngineError;
use crate::image::contents::is_bound;
use crate::image::documents::add_labels;
use crate::layers::UNCOMPRESSED;
use crate::transfer::{Board, TransferKind, TransferState};
use crate::work::{WorkLease, Workers, Working, blocking, once};

/// How layers are compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recompression {
    to: Compression,
    level: Option<i32>,
    /// OCI's media types.
    oci: bool,
    /// Only layers that are not compressed at all.
    plain_only: bool,
}

impl Recompression {
    pub(crate) fn to(to: Compression, level: Option<i32>, oci: bool) -> Self {
        Self { to, level, oci, plain_only: false }
    }

    /// What is done to plain layers of docker-archives when asked: gzip, in docker's types.
    pub(crate) fn of_archives() -> Self {
        Self { to: Compression::Gzip, level: None, oci: false, plain_only: true }
    }

    /// The compression that `layer` has, if it is one to be changed. Layers whose licence binds their bytes, and
    /// encrypted ones, are not.
    fn changes(&self, layer: &Descriptor) -> Option<Compression> {
        match media::layer_kind(&layer.media_type) {
            LayerKind::Tar(_) if is_bound(layer) => None,
            LayerKind::Tar(from) if self.plain_only => (from == Compression::None).then_some(from),
            // With a level asked for, the same format is made anew too.
            LayerKind::Tar(from) => (from != self.to || self.level.is_some()).then_some(from),
            LayerKind::Encrypted | LayerKind::Foreign => None,
        }
    }

    fn media_type(&self, before: &str) -> &'static str {
        let docker = before.starts_with("application/vnd.docker.") && !self.oci;
        match (self.to, docker) {
            (Compression::None, true) => media::DOCKER_LAYER,
            (Compression::Gzip, true) => media::DOCKER_LAYER_GZIP,
            (Compression::Zstd, true) => media::DOCKER_LAYER_ZSTD,
            (Compression::None, false) => media::OCI_LAYER,
            (Compression::Gzip, false) => media::OCI_LAYER_GZIP,
            (Compression::Zstd, false) => media::OCI_LAYER_ZSTD,
        }
    }
}

/// Compresses `layers` as `how` says; each must be the tar that its diff ID names. Those that need no change are returned
/// as they are. The blobs hang on the lease.
///
/// # Errors
/// [`EngineError::Recompress`], [`EngineError::DiffIdMismatch`] or [`EngineError::Store`]; the first ends the others.
pub(crate) async fn recompress(
    lease: &WorkLease,
    board: &Arc<Board>,
    name: &str,
    layers: &[Descriptor],
    diff_ids: &[DiffId],
    how: &Recompression,
) -> Result<Vec<Descriptor>, EngineError> {
    let at_once = std::thread::available_parallelism().map_or(2, usize::from);
    let mut waiting = layers.iter().zip(diff_ids).enumerate();
    let mut running = JoinSet::new();
    let mut done: Vec<Descriptor> = layers.to_vec();
    let mut failed = None;
    loop {
        while failed.is_none()
            && running.len() < at_once
            && let Some((number, (layer, diff_id))) = waiting.next()
        {
            let Some(from) = how.changes(layer) else {
                done[number].media_type = typed(&layer.media_type, how.oci).to_owned();
                continue;
            };
            let job = Job::new(lease, board, name, layer, *diff_id, from, *how);
            running.spawn(async move { (number, blocking(move || job.run()).await) });
        }
        match running.join_next().await {
            None => return failed.map_or(Ok(done), Err),
            Some(Ok((number, Ok(layer)))) => done[number] = layer,
            Some(Ok((_, Err(error)))) => {
                lease.workers.stop();
                failed.get_or_insert(error);
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// One layer to be compressed anew.
struct Job {
    space: Space,
    workers: Workers,
    _working: Working,
    ingest: String,
    image: String,
    layer: Descriptor,
    diff_id: DiffId,
    from: Compression,
    how: Recompression,
    item: Arc<crate::transfer::Item>,
}

impl Job {
    fn new(
        lease: &WorkLease,
        board: &Board,
        image: &str,
        layer: &Descriptor,
        diff_id: DiffId,
        from: Compression,
        how: Recompression,
    ) -> Self {
        Self {
            space: lease.space.clone(),
            workers: lease.workers.clone(),
            _working: lease.workers.begin(),
            ingest: once(&lease.name()),
            image: image.to_owned(),
            layer: layer.clone(),
            diff_id,
            from,
            how,
            item: board.item(layer.digest.to_string(), TransferKind::Layer, layer.size),
        }
    }

    fn run(self) -> Result<Descriptor, EngineError> {
        let digest = self.layer.digest;
        self.item.set(TransferState::Converting);
        let blob = self.space.open_blob(&digest)?;
        let source = self.workers.stoppable(Counted { blob, item: self.item.clone() });
        let mut ingest = self.space.ingest(&self.ingest, Expected::default())?;
        let mut failed = None;
        let sink = Sink { ingest: &mut ingest, failed: &mut failed };
        let packed = storage_layer::recompress(source, self.from, sink, self.how.to, self.how.level);
        let packed = match (packed, failed) {
            // The store's own word is the cause.
            (Err(_), Some(error)) => return Err(error.into()),
            (Err(source), None) => {
                return Err(EngineError::Recompress { reference: self.image, digest, source });
            }
            (Ok(packed), _) => packed,
        };
        if packed.diff_id != self.diff_id {
            return Err(EngineError::DiffIdMismatch {
                reference: self.image,
                digest,
                expected: self.diff_id,
                actual: packed.diff_id,
            });
        }
        let labels = Labels::from([(UNCOMPRESSED.to_owned(), self.diff_id.to_string())]);
        match ingest.commit(Expected::exactly(packed.digest, packed.size), labels.clone()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                add_labels(&self.space, &packed.digest, labels)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.item.set(TransferState::Done);
        let mut after = self.layer.clone();
        (after.digest, after.size) = (packed.digest, packed.size);
        self.how.media_type(&self.layer.media_type).clone_into(&mut after.media_type);
        after.annotations.clear();
        after.urls.clear();
        Ok(after)
    }
}

/// A blob whose reading is told.
pub(super) struct Counted {
    pub(super) blob: File,
    pub(super) item: Arc<crate::transfer::Item>,
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.item.add(read as u64);
        Ok(read)
    }
}

/// An ingest as a writer; the store's error is kept beside the `io::Error` that stands for it.
struct Sink<'a> {
    ingest: &'a mut Ingest,
    failed: &'a mut Option<StoreError>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.ingest.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                *self.failed = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
