//! Layers that can be read before they have arrived: eStargz and zstd:chunked.
//!
//! ```text
//! blob -> decompress into a file without a name -> is it the tar its diff ID names? -> write_layer -> ingest -> commit
//! ```
//! One layer at a time, each by all cores: the writer needs its tar twice, and what is decompressed lies on the disk for that
//! long. A layer that the format cannot express stays as it is, and that is told: the image is as good, only less lazy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use lazy_build::{BuildError, Format, LayerOptions, Written, write_layer};
use storage_content::{ErrorKind, Expected, Ingest, Space, StoreError};
use storage_layer::{Decompressor, Limits, PackError};
use storage_model::{Compression, Descriptor, DiffId, Hasher, Labels, LayerKind, media};

use super::{Counted, documents};
use crate::EngineError;
use crate::image::contents::is_bound;
use crate::image::documents::add_labels;
use crate::layers::UNCOMPRESSED;
use crate::transfer::{Board, TransferKind, TransferState};
use crate::work::{WorkLease, Workers, Working, blocking, once};

/// How layers are made lazy.
#[derive(Debug, Clone)]
pub(super) struct Rewriting {
    pub(super) format: Format,
    pub(super) level: Option<i32>,
    /// What is read first.
    pub(super) prioritized: Vec<Vec<u8>>,
    /// Where what is decompressed lies meanwhile.
    pub(super) scratch: PathBuf,
}

/// A layer after.
#[derive(Debug, Clone)]
pub(super) struct Rewritten {
    pub(super) layer: Descriptor,
    pub(super) diff_id: DiffId,
}

/// Writes `layer` anew, whose tar is `diff_id`; one that is no tar of ours, that its licence binds or that the format
/// cannot express comes back as it was.
///
/// # Errors
/// [`EngineError::Recompress`] or [`EngineError::DiffIdMismatch`] if the layer is damaged; [`EngineError::MakeLazy`],
/// [`EngineError::Store`].
pub(super) async fn rewrite(
    lease: &WorkLease,
    board: &Arc<Board>,
    image: &str,
    layer: &Descriptor,
    diff_id: DiffId,
    how: &Arc<Rewriting>,
) -> Result<Rewritten, EngineError> {
    let LayerKind::Tar(from) = media::layer_kind(&layer.media_type) else {
        return Ok(Rewritten { layer: layer.clone(), diff_id });
    };
    if is_bound(layer) {
        return Ok(Rewritten { layer: layer.clone(), diff_id });
    }
    let job = Job {
        space: lease.space.clone(),
        workers: lease.workers.clone(),
        _working: lease.workers.begin(),
        ingest: once(&lease.name()),
        board: board.clone(),
        image: image.to_owned(),
        layer: layer.clone(),
        diff_id,
        from,
        how: how.clone(),
    };
    blocking(move || job.run()).await
}

struct Job {
    space: Space,
    workers: Workers,
    _working: Working,
    ingest: String,
    board: Arc<Board>,
    image: String,
    layer: Descriptor,
    diff_id: DiffId,
    from: Compression,
    how: Arc<Rewriting>,
}

impl Job {
    fn run(self) -> Result<Rewritten, EngineError> {
        let item = self.board.item(self.layer.digest.to_string(), TransferKind::Layer, self.layer.size);
        item.set(TransferState::Converting);
        let source = Counted { blob: self.space.open_blob(&self.layer.digest)?, item: item.clone() };
        let tar = self.decompress(source)?;
        let mut ingest = self.space.ingest(&self.ingest, Expected::default())?;
        let mut failed = None;
        let stop = self.workers.stoppable(io::empty());
        let sink = Sink { ingest: &mut ingest, failed: &mut failed, stop };
        let how = &self.how;
        let options = LayerOptions {
            prioritized: how.prioritized.clone(),
            level: how.level,
            ..LayerOptions::new(how.format)
        };
        let written = match (write_layer(&tar, sink, &options), failed) {
            (Err(_), Some(error)) => return Err(error.into()),
            (Err(error), None) if error.is_inexpressible() => {
                ingest.abort()?;
                self.board.say(format!("layer {} stays as it is: {error}", self.layer.digest));
                item.set(TransferState::Done);
                return Ok(Rewritten { layer: self.layer, diff_id: self.diff_id });
            }
            (Err(source), None) => return Err(self.failed(source)),
            (Ok(written), _) => written,
        };
        let rewritten = self.commit(ingest, written)?;
        item.set(TransferState::Done);
        Ok(rewritten)
    }

    /// The layer's tar, proved to be what the config says.
    fn decompress(&self, source: impl Read) -> Result<File, EngineError> {
        let scratch = &self.how.scratch;
        let refused = |source| EngineError::io("make room to convert a layer in", scratch, source);
        let mut tar = storage_sys::scratch::unnamed_file(scratch).map_err(refused)?;
        let source = self.workers.stoppable(source);
        let unreadable = |source| EngineError::Recompress {
            reference: self.image.clone(),
            digest: self.layer.digest,
            source: PackError::Layer(source),
        };
        let mut stream = Decompressor::new(source, self.from, &Limits::default()).map_err(unreadable)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let filled = stream.fill(&mut buffer).map_err(unreadable)?;
            hasher.update(&buffer[..filled]);
            tar.write_all(&buffer[..filled]).map_err(refused)?;
            if filled < buffer.len() {
                break;
            }
        }
        let actual = DiffId(hasher.finish());
        if actual == self.diff_id {
            return Ok(tar);
        }
        let (reference, digest, expected) = (self.image.clone(), self.layer.digest, self.diff_id);
        Err(EngineError::DiffIdMismatch { reference, digest, expected, actual })
    }

    fn commit(&self, ingest: Ingest, written: Written) -> Result<Rewritten, EngineError> {
        let labels = Labels::from([(UNCOMPRESSED.to_owned(), written.diff_id.to_string())]);
        match ingest.commit(Expected::exactly(written.digest, written.size), labels.clone()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                add_labels(&self.space, &written.digest, labels)?;
            }
            Err(error) => return Err(error.into()),
        }
        let mut layer = self.layer.clone();
        (layer.digest, layer.size) = (written.digest, written.size);
        documents::lazy_type(self.how.format.compression()).clone_into(&mut layer.media_type);
        layer.annotations = written.annotations;
        layer.urls.clear();
        Ok(Rewritten { layer, diff_id: written.diff_id })
    }

    fn failed(&self, source: BuildError) -> EngineError {
        EngineError::MakeLazy { reference: self.image.clone(), digest: self.layer.digest, source }
    }
}

/// An ingest as a writer that ends when the operation is called off; the store's error is kept beside the `io::Error` that
/// stands for it.
struct Sink<'a, R> {
    ingest: &'a mut Ingest,
    failed: &'a mut Option<StoreError>,
    /// Fails once the operation is called off.
    stop: R,
}

impl<R: Read> Write for Sink<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.stop.read(&mut [0])?;
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
