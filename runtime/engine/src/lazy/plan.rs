//! Finds out whether an image can be shown before it has arrived, and decides whether it will be.
//!
//! `layers here? -> who can be read in pieces (annotations, SOCI) -> estimate -> tables of contents, side by side`
//!
//! Nothing is written. What says no under `auto` is a reason to bring the image whole, in words; under `required` it is
//! an error; under `always` a layer that cannot be read in pieces will be brought whole and indexed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lazy_fetch::describe::{self, Format, SociLayer, Want};
use lazy_index::Toc;
use lazy_snapshotter::Layer;
use snapshotters_contract::CommittedName;
use storage_content::Resource;
use storage_model::{Compression, Descriptor, DiffId, Digest, ProtectionDomain, chain_ids};
use tokio::task::JoinSet;

use super::choice::Choice;
use super::policy::{Estimate, Facts};
use super::{LazyError, LazyMode};
use crate::layers::{Origin, PlatformImage, Task, UNCOMPRESSED};
use crate::work::blocking;
use crate::{Engine, EngineError};

/// How an image will be brought.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Whole; with why, if lazy was thought of.
    Full(Option<Choice>),
    /// Shown before it has arrived.
    Lazy(Plan),
}

/// How an image will be shown.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its layers, lowest first.
    pub(crate) layers: Vec<Planned>,
    pub(crate) choice: Choice,
}

/// One layer of it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: CommittedName,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
    pub(crate) compression: Compression,
    pub(crate) how: How,
}

/// What is known of a layer.
#[derive(Debug)]
pub(crate) enum How {
    /// A snapshot that stands for it is here.
    Here,
    /// Its table of contents was fetched and proved.
    Described {
        toc: Arc<Toc>,
        format: &'static str,
        /// Digest in the manifest that vouches for the table.
        proof: Option<Digest>,
    },
    /// It has to be brought whole, and indexed.
    Opaque,
}

/// What the caller wants.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) mode: LazyMode,
    /// Digest of the image's manifest.
    pub(crate) manifest: &'a Descriptor,
    pub(crate) origin: &'a Origin,
}

/// Annotations of a layer whose value is the digest of its table of contents, and so vouches for it.
const VOUCHERS: [&str; 3] = [
    "containerd.io/snapshot/stargz/toc.digest",
    "io.github.containers.zstd-chunked.manifest-checksum",
    "io.containers.zstd-chunked.manifest-checksum",
];

/// What the manifest itself says the table of contents of `layer` must be.
pub(crate) fn vouched(layer: &Descriptor) -> Option<Digest> {
    VOUCHERS.iter().find_map(|key| layer.annotations.get(*key)?.parse().ok())
}

/// What is here of an image's layers, lowest first.
struct Held {
    /// A snapshot that stands for the layer.
    described: Option<Layer>,
    /// The layer is unpacked for the default snapshotter, and proved.
    unpacked: bool,
    /// Its blob is in the store, in this namespace.
    blob: bool,
    /// A snapshot of its name stands for something else, which was not proved to be the same tree.
    taken: bool,
}

/// Decides how `image` will be brought.
///
/// # Errors
/// [`LazyError::NotPossible`] if lazy is required and cannot be; those of the store. What a registry does not say or says
/// wrongly is a reason, not an error, unless lazy is required.
pub(crate) async fn decide(
    task: &Task,
    image: &Arc<PlatformImage>,
    asked: Asked<'_>,
) -> Result<Decision, EngineError> {
    if asked.mode == LazyMode::Never || image.manifest.layers.is_empty() {
        return Ok(Decision::Full(None));
    }
    let names = names(image)?;
    let held = held(task, image, &names).await?;
    if asked.mode == LazyMode::Auto && held.iter().all(|held| held.unpacked) {
        return Ok(Decision::Full(None));
    }
    if let Some(index) = held.iter().position(|held| held.taken) {
        let layer = image.manifest.layers[index].digest;
        let why = "has the chain ID of another image's that is shown and not verified yet: complete that one first \
                   (lazy fill), or remove it"
            .to_owned();
        if asked.mode == LazyMode::Required {
            return Err(LazyError::NotPossible { name: task.name.to_string(), layer, why }.into());
        }
        let reason = format!("layer {} {why}", layer.short());
        return Ok(Decision::Full(Some(Choice::new(asked.mode, false, vec![reason]))));
    }
    let soci = soci(asked, image, &held).await;
    let choice = match estimate(task, image, asked, &held, &soci) {
        Verdict::Full(choice) => return Ok(Decision::Full(choice)),
        Verdict::Lazy(choice) => choice,
    };
    let layers = describe_all(task, image, asked, names, held, soci).await?;
    weigh(task, asked, layers, choice)
}

/// Whether what was found is enough for what was asked.
fn weigh(
    task: &Task,
    asked: Asked<'_>,
    layers: Vec<(Planned, Option<String>)>,
    mut choice: Choice,
) -> Result<Decision, EngineError> {
    let opaque = layers.iter().find(|(layer, _)| matches!(layer.how, How::Opaque));
    if let Some((layer, why)) = opaque {
        let why = why.clone().unwrap_or_else(|| "says nothing of how it can be read in pieces".to_owned());
        match asked.mode {
            LazyMode::Required => {
                let (name, layer) = (task.name.to_string(), layer.descriptor.digest);
                return Err(LazyError::NotPossible { name, layer, why }.into());
            }
            LazyMode::Auto if has_error(&layers) => {
                let reason = format!("layer {} {why}", layer.descriptor.digest.short());
                return Ok(Decision::Full(Some(Choice::new(asked.mode, false, vec![reason]))));
            }
            _ => {
                let count = layers.iter().filter(|(layer, _)| matches!(layer.how, How::Opaque)).count();
                choice.reasons.push(format!("{count} layers are brought whole: the first {why}"));
            }
        }
    }
    Ok(Decision::Lazy(Plan { layers: layers.into_iter().map(|(layer, _)| layer).collect(), choice }))
}

fn has_error(layers: &[(Planned, Option<String>)]) -> bool {
    layers.iter().any(|(_, why)| why.is_some())
}

enum Verdict {
    Full(Option<Choice>),
    Lazy(Choice),
}

/// The estimate under `auto`; otherwise what was asked for.
fn estimate(task: &Task, image: &PlatformImage, asked: Asked<'_>, held: &[Held], soci: &Soci) -> Verdict {
    if asked.mode != LazyMode::Auto {
        let reason = format!("--lazy {} was asked for", asked.mode);
        return Verdict::Lazy(Choice::new(asked.mode, true, vec![reason]));
    }
    let missing = image.manifest.layers.iter().zip(held).filter(|(_, held)| !held.blob && !held.unpacked);
    let missing: Vec<&Descriptor> = missing.map(|(layer, _)| layer).collect();
    let pieces = |layer: &Descriptor| vouched(layer).is_some() || soci.has(&layer.digest);
    let known = |layer: &Descriptor| task.engine.lazy().shown().shelf().known(&layer.digest).is_some();
    let is_opaque = |layer: &&&Descriptor| !pieces(layer) && !known(layer);
    let opaque_bytes = missing.iter().filter(is_opaque).map(|layer| layer.size).sum::<u64>();
    let missing_bytes = missing.iter().map(|layer| layer.size).sum::<u64>();
    if opaque_bytes == missing_bytes {
        // As almost every image is: nothing to weigh, and nothing to tell.
        let reason = "no missing layer says how it can be read in pieces".to_owned();
        return Verdict::Full(Some(Choice::new(asked.mode, false, vec![reason])));
    }
    let described: Vec<Layer> = held.iter().filter_map(|held| held.described.clone()).collect();
    let traced = (described.len() == held.len()).then(|| task.engine.traced(&described)).flatten();
    let facts = Facts { missing_bytes, opaque_bytes, traced };
    let estimate = Estimate::new(facts, task.engine.paces().of(asked.origin.reference.registry()));
    let choice = Choice::new(asked.mode, estimate.is_lazy(), vec![estimate.why.clone()]).estimated(&estimate);
    if estimate.is_lazy() { Verdict::Lazy(choice) } else { Verdict::Full(Some(choice)) }
}

/// The tables of contents that SOCI has of an image's layers, by layer.
#[derive(Default)]
struct Soci(BTreeMap<Digest, SociLayer>);

impl Soci {
    fn has(&self, layer: &Digest) -> bool {
        self.0.contains_key(layer)
    }
}

/// Asks for SOCI's tables where they could be of use: the manifest names them, or somebody wants to be lazy at any price.
///
/// An index that only refers to the image (version 1) is vouched for by whoever may push, not by the manifest: it is not
/// used unasked.
async fn soci(asked: Asked<'_>, image: &PlatformImage, held: &[Held]) -> Soci {
    let mut layers = image.manifest.layers.iter().zip(held);
    let missing = layers.any(|(layer, held)| held.described.is_none() && vouched(layer).is_none());
    let named = image.manifest.annotations.contains_key(SOCI_INDEX);
    if !missing || (asked.mode == LazyMode::Auto && !named) {
        return Soci::default();
    }
    let Origin { client, reference } = asked.origin;
    match describe::soci(client, reference, asked.manifest, &image.manifest.annotations).await {
        Ok(found) => Soci(found),
        Err(error) => {
            tracing::debug!(%error, %reference, "no SOCI index");
            Soci::default()
        }
    }
}

/// Annotation of an image manifest that names its SOCI index (version 2).
const SOCI_INDEX: &str = "com.amazon.soci.index-digest";

/// The names of the snapshots of an image's layers, lowest first.
fn names(image: &PlatformImage) -> Result<Vec<CommittedName>, EngineError> {
    let chains = chain_ids(&image.config.rootfs.diff_ids);
    let name = |chain| Ok(ProtectionDomain::Plain.snapshot_name(&chain).parse()?);
    chains.into_iter().map(name).collect()
}

/// Looks at what is here. What is found is kept by the task's lease.
async fn held(
    task: &Task,
    image: &Arc<PlatformImage>,
    names: &[CommittedName],
) -> Result<Vec<Held>, EngineError> {
    let (engine, space, image, names) =
        (task.engine.clone(), task.space.clone(), image.clone(), names.to_vec());
    blocking(move || {
        let unpacked = engine.snapshotter("", space.clone())?;
        let mut held = Vec::with_capacity(names.len());
        // Only what stands on a stack that is the image's own can be used again.
        let mut below = true;
        for (index, name) in names.iter().enumerate() {
            let layer = &image.manifest.layers[index];
            if let Some(lease) = space.lease_id() {
                space.add_resource(lease, &Resource::snapshot(lazy_snapshotter::NAME, name.as_str()))?;
            }
            let stack = engine.lazy().stack(&space, name).ok().flatten();
            let found = stack.and_then(|mut stack| {
                // A tree whose diff IDs are all proved is that of every image with this chain, whatever its blobs are.
                let proved = stack.verified.iter().all(|verified| *verified);
                Some((stack.layers.pop()?, proved))
            });
            let any = found.is_some();
            let fits = |(found, proved): &(Layer, bool)| below && (*proved || is_of(found, layer));
            let described = found.filter(fits).map(|(layer, _)| layer);
            let taken = any && described.is_none();
            below = described.is_some();
            let blob = space.pin_blob(&layer.digest).ok();
            let diff_id = image.config.rootfs.diff_ids[index].to_string();
            let proved = blob.as_ref().is_some_and(|blob| blob.labels.get(UNCOMPRESSED) == Some(&diff_id));
            let unpacked = proved && unpacked.stat(name.as_str()).is_ok();
            held.push(Held { described, unpacked, blob: blob.is_some(), taken });
        }
        Ok(held)
    })
    .await
}

/// Whether what a snapshot stands for is `layer`, proved by the same word or by all its bytes.
fn is_of(found: &Layer, layer: &Descriptor) -> bool {
    found.blob == layer.digest
        && found.blob_bytes == layer.size
        && match found.proof {
            None => true,
            proof => proof == vouched(layer),
        }
}

/// Fetches the tables of contents of all layers that need one, side by side; with each, why there is none.
async fn describe_all(
    task: &Task,
    image: &PlatformImage,
    asked: Asked<'_>,
    names: Vec<CommittedName>,
    held: Vec<Held>,
    mut soci: Soci,
) -> Result<Vec<(Planned, Option<String>)>, EngineError> {
    let mut running = JoinSet::new();
    let mut layers = Vec::with_capacity(names.len());
    for (index, (name, held)) in names.into_iter().zip(held).enumerate() {
        let descriptor = image.manifest.layers[index].clone();
        let diff_id = image.config.rootfs.diff_ids[index];
        let how = match held.described {
            Some(_) => How::Here,
            None => How::Opaque,
        };
        if matches!(how, How::Opaque) {
            let (layer, soci) = (descriptor.clone(), soci.0.remove(&descriptor.digest));
            let (engine, origin) = (task.engine.clone(), asked.origin.clone());
            running.spawn(async move { (index, describe_one(engine, origin, layer, soci, diff_id).await) });
        }
        let compression = image.compressions[index];
        layers.push((Planned { name, descriptor, diff_id, compression, how }, None));
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((index, Ok(how))) => layers[index].0.how = how,
            Ok((index, Err(why))) => layers[index].1 = Some(why),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(layers)
}

/// The table of contents of one layer, or why there is none, in words that follow "layer X".
async fn describe_one(
    engine: Engine,
    origin: Origin,
    layer: Descriptor,
    soci: Option<SociLayer>,
    diff_id: DiffId,
) -> Result<How, String> {
    let Origin { client, reference } = origin;
    if let Some(how) = known(&engine, &layer, diff_id).await {
        return Ok(how);
    }
    let begun = Instant::now();
    let (described, proof) = match soci {
        Some(soci) => {
            (describe::soci_layer(&client, &reference, &layer, &soci).await, Some(soci.ztoc.digest))
        }
        None => (describe::layer(&client, &reference, &layer, Want::default()).await, vouched(&layer)),
    };
    let described = described.map_err(|error| format!("cannot be read in pieces: {}", words(&error)))?;
    let format = match described.format {
        Format::Opaque => return Err("says nothing of how it can be read in pieces".to_owned()),
        format => format.as_str(),
    };
    let registry = reference.registry().to_string();
    engine.paces().sent(&registry, described.bytes_fetched, begun.elapsed());
    Ok(How::Described { toc: Arc::new(described.toc), format, proof })
}

/// The table that was made of the layer's blob when it was read whole here once.
async fn known(engine: &Engine, layer: &Descriptor, diff_id: DiffId) -> Option<How> {
    let (engine, blob) = (engine.clone(), layer.digest);
    let found = blocking(move || {
        let shelf = engine.lazy().shown().shelf();
        let known = shelf.known(&blob).filter(|known| known.diff_id == diff_id);
        Ok(known.and_then(|known| shelf.toc(&known.toc).ok()))
    });
    let toc = found.await.ok()??;
    Some(How::Described { toc: Arc::new(toc), format: "indexed", proof: None })
}

/// An error and its causes in one line.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = causes.map(ToString::to_string).collect();
    words.dedup();
    words.join(": ")
}
