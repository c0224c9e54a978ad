//! Takes images out of an archive.
//!
//! `lease -> read the stream into blobs -> find the images -> labels -> unpack -> publish -> release`
//!
//! Until the last step no name has changed, and then all change or none. Every part of an image that the archive lacks
//! may be here already; platforms of an index that are not all here are left out, as after a pull for one platform.

use std::io::Read;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use snapshotters_contract::Snapshotter;
use storage_content::{ImageRecord, Space};
use storage_model::{ChainId, Descriptor, Document, Labels, Namespace, Platform, media};
use tokio::sync::mpsc::Sender;

use super::inventory::Inventory;
use super::names::Naming;
use super::{ArchiveError, docker, layout, stream};
use crate::convert::{Recompression, recompress};
use crate::image::contents::{Contents, Wanted};
use crate::image::documents::{add_labels, keeps, store_small};
use crate::image::{self, tag};
use crate::layers::{PlatformImage, Reporter, Task};
use crate::transfer::{Board, TransferEvent, Transferred, TransferredImage};
use crate::unpack::unpack_image;
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError, ImageError};

/// What to take out of an archive, and what to call it.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    /// In front of names that are tags alone; given, names outside it count as none. Empty: `import-YYYY-MM-DD`.
    pub base_name: String,
    /// Name for the archive's index as a whole; empty: none.
    pub index_name: String,
    /// Give images that have names `<base_name>@<digest>` too.
    pub digests: bool,
    /// Do not, after all: `digests` is then for nameless images only, which get theirs anyway.
    pub skip_digest_for_named: bool,
    /// Platforms to take and unpack, each of which must be there; empty: those that are there, this machine's unpacked.
    pub platforms: Vec<String>,
    /// Every platform of every index must be there.
    pub all_platforms: bool,
    /// Content only.
    pub no_unpack: bool,
    /// Snapshotter; empty is the default one.
    pub snapshotter: String,
    /// Labels of the images.
    pub labels: Labels,
    /// Compress layers of docker-archives that are not compressed.
    pub compress_blobs: bool,
    /// Replace images of the same name that have another target.
    pub replace: bool,
}

/// Names of an image, and what they are to stand for.
type Named = (Vec<String>, Descriptor);

/// An image found in the archive, and the names it gets.
struct Found {
    names: Vec<String>,
    contents: Contents,
}

impl Engine {
    /// Takes the images out of the archive that `source` streams: an OCI layout or a docker-archive, plain or
    /// compressed with gzip or zstd.
    ///
    /// # Errors
    /// [`EngineError::Archive`] for what is wrong with the archive; [`ImageError::NameTaken`] if a name stands for
    /// another image and `replace` is not set; those of [`Engine::unpack`]. No name has changed then, and what was
    /// brought is collected.
    ///
    /// # Cancel safety
    /// Dropping the future cancels with the same guarantees, as soon as `source` gives its next bytes or ends.
    pub async fn import(
        &self,
        namespace: &Namespace,
        request: ImportRequest,
        source: impl Read + Send + 'static,
        events: Sender<TransferEvent>,
    ) -> Result<Transferred, EngineError> {
        let begun = Instant::now();
        let lease = WorkLease::take(self, namespace, "import", AfterFailure::Discard).await?;
        let board = Board::start(events);
        let imported = self.import_leased(&lease, request, source, &board).await;
        let mut imported = lease.end(imported).await?;
        imported.seconds = begun.elapsed().as_secs_f64();
        Ok(imported)
    }

    async fn import_leased(
        &self,
        lease: &WorkLease,
        request: ImportRequest,
        source: impl Read + Send + 'static,
        board: &Arc<Board>,
    ) -> Result<Transferred, EngineError> {
        let wanted = Wanted::new(&request.platforms, request.all_platforms)?;
        let digests = request.digests && !request.skip_digest_for_named;
        let naming = Naming::new(&request.base_name, digests, SystemTime::now())?;
        let inventory = read(lease, source, board).await?;
        let bytes = inventory.bytes;
        let mut found = find(lease, board, inventory, &naming, &wanted, &request).await?;
        let contents: Vec<_> = found.iter().map(|found| found.contents.top.digest).collect();
        for digest in contents {
            lease.keep(digest).await?;
        }
        let mut chains = Vec::with_capacity(found.len());
        for found in &mut found {
            chains.push(match request.no_unpack {
                true => None,
                false => self.unpack_found(lease, found, &request, board).await?,
            });
        }
        let images = publish(lease, found, chains, &request).await?;
        Ok(Transferred { images, bytes, seconds: 0.0 })
    }

    /// Unpacks what an image has for the platforms asked for; without any, for this machine, if it has that.
    async fn unpack_found(
        &self,
        lease: &WorkLease,
        found: &Found,
        request: &ImportRequest,
        board: &Arc<Board>,
    ) -> Result<Option<ChainId>, EngineError> {
        let snapshotter = self.snapshotter(&request.snapshotter, lease.space.clone())?;
        let name = found.names.first().cloned().unwrap_or_default();
        let platforms = if request.platforms.is_empty() {
            vec![Platform::host().to_string()]
        } else {
            request.platforms.clone()
        };
        let mut first = None;
        for platform in platforms {
            let (space, target, name) = (lease.space.clone(), found.contents.top.clone(), name.clone());
            let read = {
                let (name, platform) = (name.clone(), platform.clone());
                blocking(move || image::read(&space, &name, &target, &platform)).await
            };
            let image = match read {
                Ok(image) => image,
                // Asked for by nobody: an image for another machine, or an artifact, is kept as it is.
                Err(
                    error @ (EngineError::NoPlatform { .. }
                    | EngineError::LayerType { .. }
                    | EngineError::Config { .. }
                    | EngineError::Image(ImageError::Absent { .. })),
                ) if request.platforms.is_empty() => {
                    board.say(format!("{name} is not unpacked: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let chain =
                self.unpack_one(lease, &name, &found.contents.top, &image, &snapshotter, board).await?;
            first = first.or(chain);
        }
        Ok(first)
    }

    async fn unpack_one(
        &self,
        lease: &WorkLease,
        name: &str,
        target: &Descriptor,
        image: &Arc<PlatformImage>,
        snapshotter: &Arc<dyn Snapshotter>,
        board: &Arc<Board>,
    ) -> Result<Option<ChainId>, EngineError> {
        let platform = image.config.platform();
        let layers = &image.manifest.layers;
        let reporter = Reporter::start(name, target.digest, platform, layers, board.unpacking());
        unpack_image(&Task::local(self, lease, name, reporter), image, snapshotter).await
    }
}

/// Reads the whole stream into blobs.
async fn read(
    lease: &WorkLease,
    source: impl Read + Send + 'static,
    board: &Arc<Board>,
) -> Result<Inventory, EngineError> {
    let (space, name, board) = (lease.space.clone(), lease.name(), board.clone());
    let (working, source) = (lease.workers.begin(), lease.workers.stoppable(source));
    blocking(move || {
        let _working = working;
        Inventory::read(stream::open(source)?, &space, &name, &board)
    })
    .await
}

/// Finds the images, stores the documents that the archive does not have itself, and labels what keeps what.
async fn find(
    lease: &WorkLease,
    board: &Arc<Board>,
    inventory: Inventory,
    naming: &Naming,
    wanted: &Wanted,
    request: &ImportRequest,
) -> Result<Vec<Found>, EngineError> {
    let targets = match blocking({
        let (space, naming, index_name) = (lease.space.clone(), naming.clone(), request.index_name.clone());
        move || oci_images(&space, &inventory, &naming, &index_name).map(|found| (inventory, found))
    })
    .await?
    {
        (_, Some(targets)) => targets,
        (inventory, None) => docker_images(lease, board, inventory, naming, request.compress_blobs).await?,
    };
    let (space, wanted, board) = (lease.space.clone(), wanted.clone(), board.clone());
    blocking(move || {
        let mut found = Vec::with_capacity(targets.len());
        for (names, target) in targets {
            let name = names.first().cloned().unwrap_or_else(|| target.digest.to_string());
            match Contents::read(&space, &name, &target, &wanted) {
                Ok(contents) => {
                    label(&space, &contents)?;
                    found.push(Found { names, contents });
                }
                // An image for other platforms only: there may be others in the archive.
                Err(error @ EngineError::NoPlatform { .. }) => {
                    board.say(format!("{name} is left out: {error}"))
                }
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() { Err(ArchiveError::Empty.into()) } else { Ok(found) }
    })
    .await
}

/// Names and targets that an OCI layout lists; `None` if the archive is none.
fn oci_images(
    space: &Space,
    inventory: &Inventory,
    naming: &Naming,
    index_name: &str,
) -> Result<Option<Vec<Named>>, EngineError> {
    let Some((descriptor, index)) = layout::index(inventory)? else { return Ok(None) };
    let mut targets = Vec::new();
    for entry in &index.manifests {
        if media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type) {
            let mut target = entry.clone();
            let names = naming.of_annotated(&target)?;
            // The name is the record's business, and would be another annotation under each name.
            target.annotations.remove(super::names::IMAGE_NAME);
            target.annotations.remove(super::names::REF_NAME);
            targets.push((names, target));
        }
    }
    if !index_name.is_empty() {
        let name = tag::whole_name(index_name, &descriptor.digest)?;
        let bytes = inventory.document(layout::INDEX).unwrap_or_default();
        store_small(space, &descriptor, bytes, Labels::new())?;
        targets.push((vec![name], descriptor));
    }
    Ok(Some(targets))
}

/// Names and targets that a docker-archive lists; their manifests are made here.
async fn docker_images(
    lease: &WorkLease,
    board: &Arc<Board>,
    inventory: Inventory,
    naming: &Naming,
    compress: bool,
) -> Result<Vec<Named>, EngineError> {
    let space = lease.space.clone();
    let images = blocking(move || {
        let bytes = inventory.document(docker::MANIFEST).ok_or(ArchiveError::Unknown {
            hint: if inventory.has_repositories {
                ": docker wrote such archives before 2016; save the image again with a current docker"
            } else {
                ""
            },
        })?;
        let listed = docker::listed(bytes)?;
        listed
            .into_iter()
            .map(|listed| docker::image(&space, &inventory, listed))
            .collect::<Result<Vec<_>, _>>()
    })
    .await?;
    let mut targets = Vec::with_capacity(images.len());
    for mut image in images {
        if compress {
            let name = image.names.first().cloned().unwrap_or_else(|| image.config.digest.to_string());
            let how = Recompression::of_archives();
            image.layers = recompress(lease, board, &name, &image.layers, &image.diff_ids, &how).await?;
        }
        let (target, bytes) = docker::manifest(&image.config, &image.layers);
        let names = naming.names(image.names.iter().map(String::as_str), &target)?;
        let (space, stored) = (lease.space.clone(), target.clone());
        blocking(move || store_small(&space, &stored, &bytes, Labels::new())).await?;
        targets.push((names, target));
    }
    Ok(targets)
}

/// Lets each document keep what it points to, as far as that is here.
fn label(space: &Space, contents: &Contents) -> Result<(), EngineError> {
    for member in &contents.members {
        let labels = keeps(&Document::Manifest(member.manifest.clone()), |_| true);
        add_labels(space, &member.descriptor.digest, labels)?;
    }
    for (descriptor, index) in &contents.indexes {
        let labels = keeps(&Document::Index(index.clone()), |child| !contents.left_out.contains(child));
        add_labels(space, &descriptor.digest, labels)?;
    }
    Ok(())
}

/// Writes the names: from here on the images exist.
async fn publish(
    lease: &WorkLease,
    found: Vec<Found>,
    chains: Vec<Option<ChainId>>,
    request: &ImportRequest,
) -> Result<Vec<TransferredImage>, EngineError> {
    let mut images: Vec<TransferredImage> = Vec::new();
    let mut records: Vec<ImageRecord> = Vec::new();
    for (found, chain) in found.into_iter().zip(chains) {
        let target = found.contents.top;
        for name in found.names {
            let digest = target.digest;
            match records.iter().find(|record| record.name == name) {
                Some(first) if first.target.digest != digest => {
                    let first = first.target.digest;
                    return Err(ArchiveError::SameName { name, first, second: digest }.into());
                }
                Some(_) => continue,
                None => {}
            }
            records.push(ImageRecord::new(name.clone(), target.clone(), request.labels.clone()));
            images.push(TransferredImage { name, digest, chain });
        }
    }
    let (space, replace) = (lease.space.clone(), request.replace);
    blocking(move || tag::publish(&space, records, replace)).await?;
    images.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(images)
}
