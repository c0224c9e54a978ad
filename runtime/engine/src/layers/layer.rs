//! One layer, in one pass: fetched, hashed, stored, inflated, hashed again, unpacked. Or without the last three.
//!
//! Two threads beside the unpacker's own: this future, which only moves bytes off the socket, and the writer
//! ([`feed`]), which hashes and stores them. The snapshot stays unreachable until both digests are proved.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use snapshotters_contract::Snapshotter;
use storage_content::{ErrorKind, Expected, Ingest, LabelChange, StoreError};
use storage_layer::{LayerError, UnpackOptions, Unpacked};
use storage_model::{ChainId, Compression, Descriptor, DiffId, Labels};
use storage_registry::{RegistryError, Target};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::extraction::Extraction;
use super::feed::{self, NETWORK_PIECES_MAX};
use super::progress::{LayerState, Meter, Part};
use super::{Origin, Task, source_label};
use crate::work::blocking;
use crate::{EngineError, ImageError};

/// Brings the blobs of `layers` that are not here, several at a time, without unpacking them.
///
/// # Errors
/// The first failure; the others are told to stop.
pub(crate) async fn fetch_all(task: &Task, layers: Vec<Descriptor>) -> Result<(), EngineError> {
    let mut waiting = layers.into_iter();
    let mut running = JoinSet::new();
    let mut failed = None;
    loop {
        while failed.is_none()
            && running.len() < task.at_once
            && let Some(layer) = waiting.next()
        {
            let job = LayerJob::new(task, layer);
            running.spawn(job.fetch());
        }
        match running.join_next().await {
            None => return failed.map_or(Ok(()), Err),
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                task.workers.stop();
                failed.get_or_insert(error);
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// All that is needed to bring one layer's blob.
pub(crate) struct LayerJob {
    task: Task,
    descriptor: Descriptor,
    meter: Arc<Meter>,
}

/// All that is needed to unpack it.
pub(crate) struct Unpacking {
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    pub(crate) compression: Compression,
    pub(crate) diff_id: DiffId,
    pub(crate) chain: ChainId,
}

/// Where the layer's bytes are.
enum Source {
    /// All here.
    Blob(File),
    /// Some or none here.
    Ingest(Box<Ingest>),
}

/// Who sent a blob.
struct Place {
    host: String,
    source: String,
}

/// A layer in a snapshot of its own, and what its bytes were.
type Extracted = (Extraction, Unpacked);

impl LayerJob {
    pub(crate) fn new(task: &Task, descriptor: Descriptor) -> Self {
        let meter = task.reporter.meter(&descriptor);
        Self { task: task.clone(), descriptor, meter }
    }

    /// Brings the layer and returns it unpacked, its blob stored and both digests proved.
    ///
    /// # Cancel safety
    /// Dropped, the download ends, the workers end soon after, and the unpacked part is removed; what was stored of the
    /// blob stays to be resumed.
    pub(crate) async fn unpack(self, how: Unpacking) -> Result<Extraction, EngineError> {
        let (extraction, unpacked) =
            self.bring(Some(&how)).await?.ok_or(EngineError::Worker(self.descriptor.digest))?;
        if unpacked.diff_id == how.diff_id {
            return Ok(extraction);
        }
        Err(EngineError::DiffIdMismatch {
            reference: self.task.name.to_string(),
            digest: self.descriptor.digest,
            expected: how.diff_id,
            actual: unpacked.diff_id,
        })
    }

    /// Brings the layer's blob only.
    ///
    /// # Cancel safety
    /// As [`unpack`](Self::unpack).
    pub(crate) async fn fetch(self) -> Result<(), EngineError> {
        self.bring(None).await?;
        self.meter.set(LayerState::Done);
        Ok(())
    }

    /// Brings the blob, and where `how` says so unpacks it on the way.
    async fn bring(&self, how: Option<&Unpacking>) -> Result<Option<Extracted>, EngineError> {
        // Held while the blob is fetched, so that it is fetched once.
        let flight = self.task.engine.claims().blob(&self.descriptor.digest);
        let _flight = flight.lock_owned().await;
        let mut lie = None;
        loop {
            let ingest = match self.source().await? {
                Source::Blob(blob) => {
                    self.meter.complete();
                    let Some(how) = how else { return Ok(None) };
                    self.meter.set(LayerState::Unpacking);
                    return self.extract(how, blob).await.map(Some);
                }
                Source::Ingest(ingest) => ingest,
            };
            let origin = self.task.origin.as_ref().ok_or_else(|| self.absent())?;
            let resumed = ingest.offset() > 0;
            let from = OnceLock::new();
            match self.download_and_unpack(origin, *ingest, &from, how).await {
                Err(EngineError::Store(StoreError::DigestMismatch { actual, .. })) => {
                    self.discard().await?;
                    // The bytes an interrupted download left may be torn by a power cut; only a host that sent all of
                    // them has lied, and is not asked again.
                    if let (false, Some(from)) = (resumed, from.get()) {
                        origin.client.avoid(&self.descriptor.digest, &from.source);
                        lie = Some(self.lie(origin, from, actual));
                    }
                }
                Err(EngineError::Registry(RegistryError::NoHost { .. })) if lie.is_some() => {
                    return Err(lie.expect("checked to be there").into());
                }
                other => return other,
            }
        }
    }

    fn lie(&self, origin: &Origin, from: &Place, actual: storage_model::Digest) -> RegistryError {
        RegistryError::DigestMismatch {
            target: Target::at(&origin.reference, self.descriptor.digest.to_string()),
            host: from.host.clone(),
            expected: self.descriptor.digest,
            actual,
        }
    }

    fn absent(&self) -> EngineError {
        let (name, digest) = (self.task.name.to_string(), self.descriptor.digest);
        ImageError::Absent { name, what: "layer", digest }.into()
    }

    /// Removes what was downloaded.
    async fn discard(&self) -> Result<(), EngineError> {
        let (space, name) = (self.task.space.clone(), self.ingest_name());
        blocking(move || Ok(space.abort_ingest(&name)?)).await
    }

    fn ingest_name(&self) -> String {
        format!("layer-{}", self.descriptor.digest)
    }

    /// Finds the blob, or begins to fetch it where there is somebody to fetch it from.
    ///
    /// Without an origin nothing is taken over from other namespaces: to know a digest is not to hold the bytes.
    async fn source(&self) -> Result<Source, EngineError> {
        let (space, digest, name) = (self.task.space.clone(), self.descriptor.digest, self.ingest_name());
        let expected = self.expected();
        let origin = self.task.origin.clone();
        let absent = self.absent();
        blocking(move || {
            let Some(origin) = origin else {
                return match space.pin_blob(&digest) {
                    Ok(_) => Ok(Source::Blob(space.open_blob(&digest)?)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Err(absent),
                    Err(error) => Err(error.into()),
                };
            };
            match space.ingest(&name, expected) {
                Ok(ingest) => Ok(Source::Ingest(Box::new(ingest))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if let Some((key, value)) = source_label(&space.blob(&digest)?.labels, &origin.reference)
                    {
                        space.set_blob_labels(&digest, LabelChange::set(key, value))?;
                    }
                    Ok(Source::Blob(space.open_blob(&digest)?))
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    fn expected(&self) -> Expected {
        Expected::exactly(self.descriptor.digest, self.descriptor.size)
    }

    /// Downloads what is missing while unpacking what arrives.
    async fn download_and_unpack(
        &self,
        origin: &Origin,
        ingest: Ingest,
        from: &OnceLock<Place>,
        how: Option<&Unpacking>,
    ) -> Result<Option<Extracted>, EngineError> {
        self.meter.set(LayerState::Downloading);
        let offset = ingest.offset();
        self.meter.resumed(offset);
        let (outlet, source) = feed::feed(ingest.reader()?, offset);
        let (to_writer, arriving) = mpsc::channel(NETWORK_PIECES_MAX);
        let writer = {
            let (expected, clock) = (self.expected(), self.task.clock.clone());
            let labels: Labels = source_label(&Labels::new(), &origin.reference).into_iter().collect();
            let working = self.task.workers.begin();
            tokio::task::spawn_blocking(move || {
                let _working = working;
                feed::write_through(ingest, arriving, outlet, expected, labels, &clock)
            })
        };
        let unpack = async {
            match how {
                Some(how) => self.extract(how, source).await.map(Some),
                None => {
                    // Nobody reads along: the writer notices and only stores.
                    drop(source);
                    Ok(None)
                }
            }
        };
        let download = async {
            let downloaded = self.download(origin, offset, to_writer, from).await;
            self.meter.set(LayerState::Unpacking);
            let written = join(writer).await;
            (downloaded, written)
        };
        let ((downloaded, written), unpacked) = tokio::join!(download, unpack);
        // The first cause wins: a full disk or wrong digest explains a download that broke off, which explains an
        // unpack that ended early; only an unpack that failed on whole, verified bytes is the layer's own fault.
        let written = written?;
        downloaded?;
        match (written, unpacked) {
            (Some(()), unpacked) => unpacked,
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(EngineError::CalledOff),
        }
    }

    /// Moves bytes from the socket to the writer until the blob is whole or the writer has stopped.
    async fn download(
        &self,
        origin: &Origin,
        offset: u64,
        to_writer: mpsc::Sender<bytes::Bytes>,
        from: &OnceLock<Place>,
    ) -> Result<(), EngineError> {
        if offset == self.descriptor.size {
            return Ok(());
        }
        let begun = Instant::now();
        let mut stream = origin.client.blob(&origin.reference, &self.descriptor, offset).await?;
        from.get_or_init(|| Place { host: stream.host().to_owned(), source: stream.source().to_owned() });
        loop {
            if let Some(gate) = &self.task.gate {
                gate.turn().await;
            }
            let bytes = tokio::select! {
                bytes = stream.next() => bytes,
                () = self.task.workers.stopped() => None,
            };
            let Some(bytes) = bytes.transpose()? else { break };
            self.meter.received(bytes.len() as u64);
            if to_writer.send(bytes).await.is_err() {
                break;
            }
        }
        self.task.clock.add(Part::Fetch, begun.elapsed());
        Ok(())
    }

    /// Unpacks `source` into a new snapshot.
    async fn extract(
        &self,
        how: &Unpacking,
        source: impl Read + Send + 'static,
    ) -> Result<Extracted, EngineError> {
        let (snapshotter, digest) = (how.snapshotter.clone(), self.descriptor.digest);
        let (compression, meter, clock) = (how.compression, self.meter.clone(), self.task.clock.clone());
        let (name, working, source) =
            (self.task.name.to_string(), self.task.workers.begin(), self.task.workers.stoppable(source));
        static TRY: AtomicU64 = AtomicU64::new(0);
        let key =
            format!("extract-{}-{} {}", self.task.lease, TRY.fetch_add(1, Ordering::Relaxed), how.chain)
                .parse()?;
        blocking(move || {
            let mut extraction = Extraction::prepare(snapshotter.clone(), key, working)?;
            let target = snapshotter.layer_target(extraction.key())?;
            let options = UnpackOptions {
                whiteouts: target.whiteouts.into(),
                record: target.record.clone(),
                ..UnpackOptions::default()
            };
            let progress = |bytes| meter.unpacked(bytes);
            let unpacked = storage_layer::unpack(source, compression, &target.path, &options, &progress)
                .map_err(|source| layer_error(name, digest, source))?;
            clock.add(Part::Inflate, unpacked.times.inflate);
            clock.add(Part::Hash, unpacked.times.hash);
            clock.add(Part::Write, unpacked.times.write);
            extraction.unpacked(target.path, &unpacked);
            Ok((extraction, unpacked))
        })
        .await
    }
}

fn layer_error(reference: String, digest: storage_model::Digest, source: LayerError) -> EngineError {
    EngineError::Layer { reference, digest, source }
}

async fn join<T: Send + 'static>(
    worker: tokio::task::JoinHandle<Result<T, StoreError>>,
) -> Result<T, EngineError> {
    match worker.await {
        Ok(result) => Ok(result?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("a blocking task is cancelled only before it starts, when the runtime ends"),
    }
}
