//! Sends an image to a registry: only what is missing there, the tag last.
//!
//! `lease -> contents -> blobs, several at a time -> manifests by digest -> top document by tag -> note where they are`
//!
//! Whoever reads the repository meanwhile sees the old image or the new one: a manifest is sent when all its blobs are
//! there, an index when all its manifests are, the tag when everything is. Blobs that another repository of the same
//! registry holds, as far as we know, are mounted instead of sent.
//!
//! An image that is here for some platforms only is sent as it is where the registry has the rest; otherwise an index of
//! those that are here takes its place, and that is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use storage_content::{ImageRecord, LabelChange, Space};
use storage_model::{Descriptor, Digest, Namespace, Reference};
use storage_registry::{Client, Pushed};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::convert::reduced_index;
use crate::image::contents::{Contents, Member, Wanted, is_bound};
use crate::image::{documents, resolve};
use crate::layers::{repositories, source_label};
use crate::pull::RegistryOptions;
use crate::transfer::{Board, TransferEvent, TransferKind, TransferState, Transferred, TransferredImage};
use crate::work::{AfterFailure, WorkLease, blocking};
use crate::{Engine, EngineError, ImageError};

/// Blobs sent side by side when nobody says how many: enough to fill a line of long round trips.
const UPLOADS_AT_ONCE: usize = 4;

/// What to push where.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// The image, as [`Engine::resolve_image`] takes it; empty: the one called like `reference`.
    pub image: String,
    /// Where to: registry, repository and tag.
    pub reference: String,
    /// Platforms to send, each of which must be here; one alone is sent without an index. Empty: what is here.
    pub platforms: Vec<String>,
    /// All platforms, each of which must be here.
    pub all_platforms: bool,
    /// Send this manifest instead of the image's target.
    pub manifest_digest: Option<Digest>,
    /// Blobs sent at once; 0 is the engine's choice.
    pub max_concurrent_uploads: usize,
    /// How the registry is spoken to.
    pub registry: RegistryOptions,
}

/// One push, from resolved to tagged.
struct Push {
    space: Space,
    client: Client,
    reference: Reference,
    board: Arc<Board>,
    at_once: usize,
    name: String,
}

impl Engine {
    /// Pushes an image; tells of its progress through `events`. The image returned is what the tag stands for now.
    ///
    /// # Errors
    /// [`EngineError::Image`] if something of it is not here, before anything was sent; [`EngineError::Registry`]. The
    /// tag is as it was then; blobs that arrived may stay in the registry until its own collection.
    ///
    /// # Cancel safety
    /// Dropping the future ends the uploads; the tag is as it was or as it should be.
    pub async fn push(
        &self,
        namespace: &Namespace,
        request: PushRequest,
        events: Sender<TransferEvent>,
    ) -> Result<Transferred, EngineError> {
        let begun = Instant::now();
        let lease = WorkLease::take(self, namespace, "push", AfterFailure::Discard).await?;
        let board = Board::start(events);
        let pushed = self.push_leased(&lease, request, &board).await;
        let mut pushed = lease.end(pushed).await?;
        pushed.seconds = begun.elapsed().as_secs_f64();
        Ok(pushed)
    }

    async fn push_leased(
        &self,
        lease: &WorkLease,
        request: PushRequest,
        board: &Arc<Board>,
    ) -> Result<Transferred, EngineError> {
        let text = &request.reference;
        let reference: Reference =
            text.parse().map_err(|source| EngineError::Reference { text: text.clone(), source })?;
        let wanted = Wanted::new(&request.platforms, request.all_platforms)?;
        let client = self.client(&request.registry, {
            let board = board.clone();
            move |text| board.say(text)
        })?;
        let image = if request.image.is_empty() { reference.to_string() } else { request.image.clone() };
        let (record, top) = find(lease, image, request.manifest_digest).await?;
        lease.keep(top.digest).await?;
        let contents = {
            let (space, name, wanted) = (lease.space.clone(), record.name.clone(), wanted.clone());
            blocking(move || Contents::read(&space, &name, &top, &wanted)).await?
        };
        let at_once = match request.max_concurrent_uploads {
            0 => UPLOADS_AT_ONCE,
            count => count,
        };
        let (space, board, name) = (lease.space.clone(), board.clone(), record.name.clone());
        Push { space, client, reference, board, at_once, name }.send(contents, &wanted).await
    }
}

/// The image, and what of it is sent.
async fn find(
    lease: &WorkLease,
    image: String,
    manifest: Option<Digest>,
) -> Result<(ImageRecord, Descriptor), EngineError> {
    let space = lease.space.clone();
    blocking(move || {
        let record = resolve::find(&space, &image)?;
        let Some(digest) = manifest else {
            let target = record.target.clone();
            return Ok((record, target));
        };
        let contents = Contents::read(&space, &record.name, &record.target, &Wanted::Here)?;
        let all = contents.members.iter().map(|member| &member.descriptor);
        let found =
            all.chain(contents.indexes.iter().map(|(index, _)| index)).find(|one| one.digest == digest);
        let found = found.cloned().ok_or_else(|| {
            let (name, what) = (record.name.clone(), "manifest");
            EngineError::from(ImageError::Absent { name, what, digest })
        })?;
        Ok((record, found))
    })
    .await
}

impl Push {
    async fn send(self, contents: Contents, wanted: &Wanted) -> Result<Transferred, EngineError> {
        let mut sent = self.send_blobs(contents.blobs()).await?;
        // One platform that was asked for is sent alone; so is a manifest that no index lists.
        let alone = match (wanted, contents.members.as_slice()) {
            (Wanted::These(platforms), [one]) if platforms.len() == 1 => Some(one.clone()),
            _ if contents.indexes.is_empty() => contents.members.first().cloned(),
            _ => None,
        };
        let top = match alone {
            Some(Member { descriptor, .. }) => {
                let bytes = self.read(&descriptor).await?;
                self.send_top(descriptor, bytes, &mut sent).await?
            }
            None => {
                for member in &contents.members {
                    let bytes = self.read(&member.descriptor).await?;
                    self.send_document(&member.descriptor, bytes, &mut sent).await?;
                }
                self.send_indexes(&contents, &mut sent).await?
            }
        };
        self.note(&contents).await?;
        let images =
            vec![TransferredImage { name: self.reference.to_string(), digest: top.digest, chain: None }];
        Ok(Transferred { images, bytes: sent, seconds: 0.0 })
    }

    /// Sends blobs side by side and returns how many bytes were sent.
    async fn send_blobs(&self, blobs: Vec<Descriptor>) -> Result<u64, EngineError> {
        let items: Vec<_> = blobs
            .iter()
            .map(|blob| self.board.item(blob.digest.to_string(), TransferKind::of(blob), blob.size))
            .collect();
        let mut waiting = blobs.into_iter().zip(items);
        let mut running = JoinSet::new();
        let mut sent = 0;
        loop {
            while running.len() < self.at_once
                && let Some((blob, item)) = waiting.next()
            {
                let (client, reference, space) =
                    (self.client.clone(), self.reference.clone(), self.space.clone());
                running.spawn(async move { send_blob(&client, &reference, &space, &blob, item).await });
            }
            match running.join_next().await {
                None => return Ok(sent),
                Some(Ok(Ok(bytes))) => sent += bytes,
                // The others end with the set.
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }

    async fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        let (space, name, descriptor) = (self.space.clone(), self.name.clone(), descriptor.clone());
        blocking(move || documents::bytes(&space, &name, &descriptor)).await
    }

    /// Sends the indexes, those inside others first and the last one under the tag.
    async fn send_indexes(&self, contents: &Contents, sent: &mut u64) -> Result<Descriptor, EngineError> {
        let mut renewed: HashMap<Digest, Descriptor> = HashMap::new();
        for member in &contents.members {
            renewed.insert(member.descriptor.digest, member.descriptor.clone());
        }
        for left_out in &contents.left_out {
            let there = self.reference.with_digest(left_out.digest);
            if self.client.has_manifest(&there, &left_out.digest).await? {
                renewed.insert(left_out.digest, left_out.clone());
            }
        }
        let last = contents.indexes.len().saturating_sub(1);
        let mut top = contents.top.clone();
        for (number, (descriptor, index)) in contents.indexes.iter().enumerate() {
            let mut bytes = self.read(descriptor).await?;
            let mut after = descriptor.clone();
            let absent = index.manifests.iter().filter(|entry| !renewed.contains_key(&entry.digest)).count();
            let changed = index
                .manifests
                .iter()
                .any(|entry| renewed.get(&entry.digest).is_none_or(|renewed| renewed.digest != entry.digest));
            if changed {
                bytes = reduced_index(&descriptor.media_type, &bytes, &renewed);
                (after.digest, after.size) = (Digest::of(&bytes), bytes.len() as u64);
            }
            if absent > 0 {
                self.board.say(format!(
                    "{absent} of the {} manifests of {} are neither here nor there: an index of the others is pushed",
                    index.manifests.len(),
                    self.name
                ));
            }
            renewed.insert(descriptor.digest, after.clone());
            if number == last {
                top = self.send_top(after, bytes, sent).await?;
            } else {
                self.send_document(&after, bytes, sent).await?;
            }
        }
        Ok(top)
    }

    /// Sends a document under its digest, unless it is there.
    async fn send_document(
        &self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        sent: &mut u64,
    ) -> Result<(), EngineError> {
        let item =
            self.board.item(descriptor.digest.to_string(), TransferKind::of(descriptor), descriptor.size);
        let place = self.reference.with_digest(descriptor.digest);
        if self.client.has_manifest(&place, &descriptor.digest).await? {
            item.set(TransferState::Exists);
            return Ok(());
        }
        item.set(TransferState::Uploading);
        *sent += bytes.len() as u64;
        self.client.push_manifest(&place, &descriptor.media_type, Bytes::from(bytes)).await?;
        item.set(TransferState::Done);
        Ok(())
    }

    /// Sends the document that the reference will stand for.
    async fn send_top(
        &self,
        descriptor: Descriptor,
        bytes: Vec<u8>,
        sent: &mut u64,
    ) -> Result<Descriptor, EngineError> {
        let item =
            self.board.item(descriptor.digest.to_string(), TransferKind::of(&descriptor), descriptor.size);
        item.set(TransferState::Uploading);
        *sent += bytes.len() as u64;
        self.client.push_manifest(&self.reference, &descriptor.media_type, Bytes::from(bytes)).await?;
        item.set(TransferState::Done);
        Ok(descriptor)
    }

    /// Notes on every part that this repository has it now: the next push mounts it from there.
    async fn note(&self, contents: &Contents) -> Result<(), EngineError> {
        let (space, reference) = (self.space.clone(), self.reference.clone());
        let mut all: HashSet<Digest> = contents.blobs().iter().map(|blob| blob.digest).collect();
        all.extend(contents.members.iter().map(|member| member.descriptor.digest));
        blocking(move || {
            for digest in all {
                if let Some((key, value)) = source_label(&space.blob(&digest)?.labels, &reference) {
                    space.set_blob_labels(&digest, LabelChange::set(key, value))?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// Brings one blob into the repository and returns how many bytes were sent for it.
async fn send_blob(
    client: &Client,
    reference: &Reference,
    space: &Space,
    blob: &Descriptor,
    item: Arc<crate::transfer::Item>,
) -> Result<u64, EngineError> {
    let known = {
        let (space, digest) = (space.clone(), blob.digest);
        blocking(move || Ok(space.blob(&digest)?)).await?
    };
    let from = repositories(&known.labels, reference.registry());
    // A layer that may not be distributed stays where its owner serves it, if that is what its manifest says.
    if !blob.urls.is_empty() && is_bound(blob) {
        item.set(TransferState::Exists);
        return Ok(0);
    }
    item.set(TransferState::Uploading);
    let progress = {
        let item = item.clone();
        Arc::new(move |bytes| item.at(bytes))
    };
    let open = {
        let (space, digest) = (space.clone(), blob.digest);
        move || space.open_blob(&digest).map_err(std::io::Error::other)
    };
    let pushed = client.push_blob(reference, blob, open, &from, progress).await?;
    item.set(match pushed {
        Pushed::Existed => TransferState::Exists,
        Pushed::Mounted(_) => TransferState::Mounted,
        Pushed::Sent => TransferState::Done,
    });
    Ok(if pushed == Pushed::Sent { blob.size } else { 0 })
}
