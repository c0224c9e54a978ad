//! Makes an image of the same trees, with its layers in another compression or its documents of OCI's types.
//!
//! `lease -> layers and manifests (member) -> write indexes -> publish -> release`
//!
//! In another compression the tars stay byte for byte what they were, so diff IDs, configs and unpacked snapshots stay too;
//! only blobs and the documents that name them are new. In most lazy forms the tars are in another order and have their table
//! of contents in them: the config says their new diff IDs. The same image converted twice is the same image, here or
//! elsewhere. What is not said of something any more is left out: annotations that index the old bytes, and attestations
//! of manifests that changed; a lazy image is the same image for another way to it, and keeps them.

mod documents;
mod lazy;
mod member;
mod prioritized;
mod recompress;
mod soci;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use storage_content::{ImageRecord, Space};
use storage_model::{Compression, Descriptor, Digest, Document, Namespace, media};
use tokio::sync::mpsc::Sender;

use member::{Converting, Members};
use recompress::Counted;
pub(crate) use recompress::{Recompression, recompress};
use soci::Beside;

/// The index `bytes` with what `renewed` says of its entries, without those it does not know.
pub(crate) fn reduced_index(
    media_type: &str,
    bytes: &[u8],
    renewed: &HashMap<Digest, Descriptor>,
) -> Vec<u8> {
    documents::index(media_type, bytes, renewed, false).1
}

use crate::image::contents::{Contents, Member, Wanted, is_attestation};
use crate::image::documents::{keeps, store_small};
use crate::image::{documents as stored, resolve, tag};
use crate::transfer::{Board, TransferEvent, Transferred, TransferredImage};
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError};

/// What to convert into what.
#[derive(Debug, Clone, Default)]
pub struct ConvertRequest {
    /// The image, as [`Engine::resolve_image`] takes it.
    pub image: String,
    /// Name of the new image; one that is taken moves over.
    pub target: String,
    /// Compression of the layers; none: as they are.
    pub compression: Option<Compression>,
    /// Level of the compression; none: its usual one.
    pub level: Option<i32>,
    /// OCI media types throughout. zstd implies it: docker has no type for it.
    pub oci: bool,
    /// Platforms that the new image has; empty: those that are here.
    pub platforms: Vec<String>,
    /// All platforms, each of which must be here.
    pub all_platforms: bool,
    /// A form in which layers are read lazily; then there is no compression.
    pub lazy: Option<LazyForm>,
    /// What is read first: a path a line, or a trace. Empty: nothing.
    pub prioritized: Vec<u8>,
}

/// Forms of layers that are read before they have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LazyForm {
    /// Layers of that format.
    Layers(lazy_build::Format),
    /// The same layers, with their tables of contents beside the image.
    Soci(lazy_build::soci::Version),
}

impl ConvertRequest {
    /// The compression that a word means: `gzip`, `zstd`, `uncompressed`; empty is to leave layers as they are.
    ///
    /// # Errors
    /// [`EngineError::UnknownCompression`].
    pub fn compression(word: &str) -> Result<Option<Compression>, EngineError> {
        match word {
            "" => Ok(None),
            "gzip" => Ok(Some(Compression::Gzip)),
            "zstd" => Ok(Some(Compression::Zstd)),
            "uncompressed" | "none" => Ok(Some(Compression::None)),
            other => Err(EngineError::UnknownCompression(other.chars().take(64).collect())),
        }
    }
}

impl LazyForm {
    /// The form that a word means; empty is none.
    ///
    /// # Errors
    /// [`EngineError::UnknownLazyForm`].
    pub fn parse(word: &str) -> Result<Option<Self>, EngineError> {
        use lazy_build::{Dialect, Format};
        Ok(Some(match word {
            "" => return Ok(None),
            "estargz" => Self::Layers(Format::Estargz),
            "zstd-chunked" | "zstd-chunked=containers" => {
                Self::Layers(Format::ZstdChunked(Dialect::Containers))
            }
            "zstd-chunked=stargz" => Self::Layers(Format::ZstdChunked(Dialect::Stargz)),
            "soci" | "soci=2" => Self::Soci(lazy_build::soci::Version::Two),
            "soci=1" => Self::Soci(lazy_build::soci::Version::One),
            other => return Err(EngineError::UnknownLazyForm(other.chars().take(64).collect())),
        }))
    }
}

impl Engine {
    /// Converts an image that is here; tells of its progress through `events`. The first image returned is the new one.
    ///
    /// # Errors
    /// [`EngineError::Recompress`] or [`EngineError::DiffIdMismatch`] if a layer is damaged; those of reading the image.
    /// No name has changed then, and what was written is collected.
    ///
    /// # Cancel safety
    /// Dropping the future cancels with the same guarantees.
    pub async fn convert(
        &self,
        namespace: &Namespace,
        request: ConvertRequest,
        events: Sender<TransferEvent>,
    ) -> Result<Transferred, EngineError> {
        let begun = Instant::now();
        let lease = WorkLease::take(self, namespace, "convert", AfterFailure::Discard).await?;
        let board = Board::start(events);
        let converted = convert_leased(&lease, request, &board, &self.config().root).await;
        let mut converted = lease.end(converted).await?;
        converted.seconds = begun.elapsed().as_secs_f64();
        Ok(converted)
    }
}

async fn convert_leased(
    lease: &WorkLease,
    request: ConvertRequest,
    board: &Arc<Board>,
    root: &Path,
) -> Result<Transferred, EngineError> {
    let wanted = Wanted::new(&request.platforms, request.all_platforms)?;
    let oci = request.oci || request.lazy.is_some() || request.compression == Some(Compression::Zstd);
    let (space, image) = (lease.space.clone(), request.image.clone());
    let source = blocking(move || resolve::find(&space, &image)).await?;
    lease.keep(source.target.digest).await?;
    let contents = {
        let (space, name, target) = (lease.space.clone(), source.name.clone(), source.target.clone());
        blocking(move || Contents::read(&space, &name, &target, &wanted)).await?
    };
    let how = Converting::new(&request, oci, root)?;
    if how.keeps_order() && !request.prioritized.is_empty() {
        board.say("nothing is put first: this form keeps its tars, and their order");
    }
    let mut renewed: HashMap<Digest, Descriptor> = HashMap::new();
    let mut beside: HashMap<Digest, Beside> = HashMap::new();
    let mut bytes = 0;
    // What is about an image comes after it: it says what the image is now.
    let (about, images): (Vec<&Member>, Vec<&Member>) = contents
        .members
        .iter()
        .filter(|member| how.is_lazy() || !is_attestation(&member.descriptor))
        .partition(|member| member.manifest.subject.is_some());
    let mut members = Members { lease, board, name: &source.name, how, oci, done: HashMap::new() };
    for member in images.into_iter().chain(about) {
        let subject = member.manifest.subject.as_ref().and_then(|subject| renewed.get(&subject.digest));
        let after = members.convert(member, subject.cloned()).await?;
        bytes += after.bytes;
        let digest = member.descriptor.digest;
        beside.extend(after.beside.map(|beside| (digest, beside)));
        renewed.insert(digest, after.manifest);
    }
    let target = write_indexes(lease, board, &source.name, contents, renewed, beside, oci).await?;
    let image = publish(lease, &source, target, &request.target).await?;
    Ok(Transferred { images: vec![image], bytes, seconds: 0.0 })
}

/// Writes each index anew, those inside others first, and returns what the new image's name stands for.
async fn write_indexes(
    lease: &WorkLease,
    board: &Arc<Board>,
    name: &str,
    contents: Contents,
    mut renewed: HashMap<Digest, Descriptor>,
    beside: HashMap<Digest, Beside>,
    oci: bool,
) -> Result<Descriptor, EngineError> {
    let (space, name, board) = (lease.space.clone(), name.to_owned(), board.clone());
    blocking(move || {
        let changed = renewed.iter().any(|(before, after)| *before != after.digest);
        let mut dropped = 0;
        for member in contents.members.iter().filter(|member| is_attestation(&member.descriptor)) {
            if renewed.contains_key(&member.descriptor.digest) {
                continue;
            }
            if changed {
                dropped += 1;
            } else {
                renewed.insert(member.descriptor.digest, member.descriptor.clone());
            }
        }
        if dropped > 0 {
            board.say(format!("{dropped} attestations are left out: they speak of manifests that changed"));
        }
        for (descriptor, index) in &contents.indexes {
            let bytes = stored::bytes(&space, &name, descriptor)?;
            let (media_type, written) = documents::index(&descriptor.media_type, &bytes, &renewed, oci);
            let here = index.manifests.iter().map(|entry| entry.digest);
            let entries: Vec<_> =
                here.filter_map(|digest| Some(beside.get(&digest)?.entry(renewed.get(&digest)?))).collect();
            let written = documents::with_entries(written, &entries);
            let after = store(&space, &name, descriptor, media_type, &written)?;
            renewed.insert(descriptor.digest, after);
        }
        let top = renewed.remove(&contents.top.digest).unwrap_or(contents.top.clone());
        match beside.get(&contents.top.digest) {
            None => Ok(top),
            // One manifest and what is beside it: an index of the two takes its place.
            Some(beside) => {
                let written = documents::index_of(&top, beside.platform(), &beside.entry(&top));
                store(&space, &name, &top, media::OCI_INDEX.to_owned(), &written)
            }
        }
    })
    .await
}

/// Stores a document that takes the place of `before`; it keeps what it points to.
fn store(
    space: &Space,
    name: &str,
    before: &Descriptor,
    media_type: String,
    bytes: &[u8],
) -> Result<Descriptor, EngineError> {
    let mut after = before.clone();
    (after.media_type, after.digest, after.size) = (media_type, Digest::of(bytes), bytes.len() as u64);
    let document: Document = stored::parse(name, &after, bytes)?;
    store_small(space, &after, bytes, keeps(&document, |_| true))?;
    Ok(after)
}

async fn publish(
    lease: &WorkLease,
    source: &ImageRecord,
    target: Descriptor,
    name: &str,
) -> Result<TransferredImage, EngineError> {
    let name = tag::whole_name(name, &target.digest)?;
    let (space, labels) = (lease.space.clone(), tag::inherited(&source.labels));
    let digest = target.digest;
    let record = ImageRecord::new(name.clone(), target, labels);
    blocking(move || Ok(space.put_image(record).map(drop)?)).await?;
    Ok(TransferredImage { name, digest, chain: None })
}
