//! One layer, in one pass: fetched, hashed, stored, inflated, hashed again, unpacked.
//!
//! Two threads beside the unpacker's own: this future, which only moves bytes off the socket, and the writer
//! ([`feed`]), which hashes and stores them. The snapshot stays unreachable until both digests are proved.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use snapshotters_contract::Snapshotter;
use storage_content::{ErrorKind, Expected, Ingest, Space, StoreError};
use storage_layer::{LayerError, UnpackOptions, Unpacked};
use storage_model::{ChainId, Compression, Descriptor, DiffId, Reference};
use storage_registry::{Client, RegistryError, Target};
use tokio::sync::mpsc;

use super::blocking;
use super::extraction::Extraction;
use super::feed::{self, NETWORK_PIECES_MAX};
use super::progress::{Clock, LayerState, Meter, Part};
use super::workers::Workers;
use crate::EngineError;

/// All that is needed to bring one layer.
pub(crate) struct LayerJob {
    pub(crate) reference: Reference,
    pub(crate) descriptor: Descriptor,
    pub(crate) compression: Compression,
    pub(crate) diff_id: DiffId,
    pub(crate) chain: ChainId,
    pub(crate) client: Client,
    pub(crate) space: Space,
    /// Makes the extraction's key unique in this namespace.
    pub(crate) pull: String,
    pub(crate) snapshotter: Arc<dyn Snapshotter>,
    /// Held while the blob is fetched, so that it is fetched once.
    pub(crate) flight: Arc<tokio::sync::Mutex<()>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) workers: Workers,
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

impl LayerJob {
    /// Brings the layer and returns it unpacked, its blob stored and both digests proved.
    ///
    /// # Cancel safety
    /// Dropped, the download ends, the workers end soon after, and the unpacked part is removed; what was stored of the
    /// blob stays to be resumed.
    pub(crate) async fn run(self) -> Result<Extraction, EngineError> {
        let _flight = self.flight.clone().lock_owned().await;
        let mut lie = None;
        loop {
            let ingest = match self.source().await? {
                Source::Blob(blob) => {
                    self.meter.set(LayerState::Unpacking);
                    self.meter.received(self.descriptor.size);
                    return self.unpacked(self.unpack(blob).await?);
                }
                Source::Ingest(ingest) => ingest,
            };
            let resumed = ingest.offset() > 0;
            let from = OnceLock::new();
            match self.fetch(*ingest, &from).await {
                Err(EngineError::Store(StoreError::DigestMismatch { actual, .. })) => {
                    self.discard().await?;
                    // The bytes an interrupted download left may be torn by a power cut; only a host that sent all of
                    // them has lied, and is not asked again.
                    if let (false, Some(from)) = (resumed, from.get()) {
                        self.client.avoid(&self.descriptor.digest, &from.source);
                        lie = Some(self.lie(from, actual));
                    }
                }
                Err(EngineError::Registry(RegistryError::NoHost { .. })) if lie.is_some() => {
                    return Err(lie.expect("checked to be there").into());
                }
                other => return self.unpacked(other?),
            }
        }
    }

    fn lie(&self, from: &Place, actual: storage_model::Digest) -> RegistryError {
        RegistryError::DigestMismatch {
            target: Target::at(&self.reference, self.descriptor.digest.to_string()),
            host: from.host.clone(),
            expected: self.descriptor.digest,
            actual,
        }
    }

    /// Removes what was downloaded.
    async fn discard(&self) -> Result<(), EngineError> {
        let (space, name) = (self.space.clone(), self.ingest_name());
        blocking(move || Ok(space.abort_ingest(&name)?)).await
    }

    fn ingest_name(&self) -> String {
        format!("layer-{}", self.descriptor.digest)
    }

    fn unpacked(&self, (extraction, unpacked): (Extraction, Unpacked)) -> Result<Extraction, EngineError> {
        if unpacked.diff_id == self.diff_id {
            return Ok(extraction);
        }
        Err(EngineError::DiffIdMismatch {
            reference: self.reference.to_string(),
            digest: self.descriptor.digest,
            expected: self.diff_id,
            actual: unpacked.diff_id,
        })
    }

    async fn source(&self) -> Result<Source, EngineError> {
        let (space, digest, name) = (self.space.clone(), self.descriptor.digest, self.ingest_name());
        let expected = self.expected();
        blocking(move || match space.ingest(&name, expected) {
            Ok(ingest) => Ok(Source::Ingest(Box::new(ingest))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(Source::Blob(space.open_blob(&digest)?))
            }
            Err(error) => Err(error.into()),
        })
        .await
    }

    fn expected(&self) -> Expected {
        Expected::exactly(self.descriptor.digest, self.descriptor.size)
    }

    /// Downloads what is missing while unpacking what arrives.
    async fn fetch(
        &self,
        ingest: Ingest,
        from: &OnceLock<Place>,
    ) -> Result<(Extraction, Unpacked), EngineError> {
        self.meter.set(LayerState::Downloading);
        let offset = ingest.offset();
        self.meter.resumed(offset);
        let (outlet, source) = feed::feed(ingest.reader()?, offset);
        let (to_writer, arriving) = mpsc::channel(NETWORK_PIECES_MAX);
        let writer = {
            let (expected, clock) = (self.expected(), self.clock.clone());
            tokio::task::spawn_blocking(move || {
                feed::write_through(ingest, arriving, outlet, expected, &clock)
            })
        };
        let unpack = self.unpack(source);
        let download = async {
            let downloaded = self.download(offset, to_writer, from).await;
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
            (None, Ok(_)) => Err(EngineError::Worker(self.descriptor.digest)),
        }
    }

    /// Moves bytes from the socket to the writer until the blob is whole or the writer has stopped.
    async fn download(
        &self,
        offset: u64,
        to_writer: mpsc::Sender<bytes::Bytes>,
        from: &OnceLock<Place>,
    ) -> Result<(), EngineError> {
        if offset == self.descriptor.size {
            return Ok(());
        }
        let begun = Instant::now();
        let mut stream = self.client.blob(&self.reference, &self.descriptor, offset).await?;
        from.get_or_init(|| Place { host: stream.host().to_owned(), source: stream.source().to_owned() });
        loop {
            let bytes = tokio::select! {
                bytes = stream.next() => bytes,
                () = self.workers.stopped() => None,
            };
            let Some(bytes) = bytes.transpose()? else { break };
            self.meter.received(bytes.len() as u64);
            if to_writer.send(bytes).await.is_err() {
                break;
            }
        }
        self.clock.add(Part::Fetch, begun.elapsed());
        Ok(())
    }

    /// Unpacks `source` into a new snapshot.
    async fn unpack(
        &self,
        source: impl Read + Send + 'static,
    ) -> Result<(Extraction, Unpacked), EngineError> {
        let (snapshotter, digest) = (self.snapshotter.clone(), self.descriptor.digest);
        let (compression, meter, clock) = (self.compression, self.meter.clone(), self.clock.clone());
        let (reference, working, source) =
            (self.reference.to_string(), self.workers.begin(), self.workers.stoppable(source));
        static TRY: AtomicU64 = AtomicU64::new(0);
        let key = format!("extract-{}-{} {}", self.pull, TRY.fetch_add(1, Ordering::Relaxed), self.chain)
            .parse()?;
        blocking(move || {
            let mut extraction = Extraction::prepare(snapshotter.clone(), key, working)?;
            let target = snapshotter.layer_target(extraction.key())?;
            let options = UnpackOptions { whiteouts: target.whiteouts.into(), ..UnpackOptions::default() };
            let progress = |bytes| meter.unpacked(bytes);
            let unpacked = storage_layer::unpack(source, compression, &target.path, &options, &progress)
                .map_err(|source| layer_error(reference, digest, source))?;
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
