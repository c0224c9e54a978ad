//! One manifest: its layers made anew, and whatever says their digests.
//!
//! `layers -> config (if diff IDs changed) -> [SOCI index] -> manifest`

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lazy_build::soci::Version;
use storage_model::{Descriptor, DiffId, Digest, ImageConfig, Labels, media};

use super::recompress::{Recompression, recompress};
use super::{ConvertRequest, LazyForm, documents, lazy, prioritized, soci, store};
use crate::EngineError;
use crate::image::contents::{Member, is_attestation};
use crate::image::documents::{self as stored, store_small};
use crate::transfer::Board;
use crate::work::{WorkLease, blocking};

/// What is done to layers.
pub(super) enum Converting {
    Nothing,
    Recompress(Recompression),
    Rewrite(Arc<lazy::Rewriting>),
    Describe(Version),
}

impl Converting {
    pub(super) fn new(request: &ConvertRequest, oci: bool, root: &Path) -> Result<Self, EngineError> {
        let prioritized = prioritized::paths(&request.prioritized)?;
        Ok(match (request.lazy, request.compression) {
            (Some(_), Some(_)) => return Err(EngineError::UnknownLazyForm("lazy and a compression".into())),
            (None, None) => Self::Nothing,
            (None, Some(to)) => Self::Recompress(Recompression::to(to, request.level, oci)),
            (Some(LazyForm::Soci(version)), None) => Self::Describe(version),
            (Some(LazyForm::Layers(format)), None) => {
                let (scratch, level) = (root.to_owned(), request.level);
                Self::Rewrite(Arc::new(lazy::Rewriting { format, level, prioritized, scratch }))
            }
        })
    }

    /// Entries stay in the order of their tars.
    pub(super) fn keeps_order(&self) -> bool {
        match self {
            Self::Rewrite(how) => how.format.keeps_diff_id(),
            Self::Nothing | Self::Recompress(_) | Self::Describe(_) => true,
        }
    }

    /// The result is the same image for another way to it.
    pub(super) fn is_lazy(&self) -> bool {
        matches!(self, Self::Rewrite(_) | Self::Describe(_))
    }
}

/// A member's layers, and what else of it changed.
#[derive(Default)]
struct After {
    layers: Vec<Descriptor>,
    config: Option<Descriptor>,
    described: Option<soci::Described>,
}

/// A member that was written anew.
pub(super) struct Renewed {
    pub(super) manifest: Descriptor,
    /// Bytes of its layers.
    pub(super) bytes: u64,
    /// What has to stand beside it.
    pub(super) beside: Option<soci::Beside>,
}

/// What members share: how they are converted, and layers that are done.
pub(super) struct Members<'a> {
    pub(super) lease: &'a WorkLease,
    pub(super) board: &'a Arc<Board>,
    pub(super) name: &'a str,
    pub(super) how: Converting,
    pub(super) oci: bool,
    /// Images of several platforms share layers.
    pub(super) done: HashMap<Digest, lazy::Rewritten>,
}

impl Members<'_> {
    /// Converts `member`, whose subject is now `subject`, if it has one that changed.
    ///
    /// # Errors
    /// Those of its layers, and of the store.
    pub(super) async fn convert(
        &mut self,
        member: &Member,
        subject: Option<Descriptor>,
    ) -> Result<Renewed, EngineError> {
        let mut after = self.layers(member).await?;
        let bytes = after.layers.iter().map(|layer| layer.size).sum::<u64>();
        let version = match self.how {
            Converting::Describe(version) => version,
            _ => Version::Two,
        };
        let described = after.described.take();
        let (lease, name) = (self.lease, self.name);
        Ok(match (described, version) {
            (None, _) => {
                let manifest = self.write_manifest(member, after, subject, None).await?;
                Renewed { manifest, bytes, beside: None }
            }
            // The manifest names the index.
            (Some(described), Version::Two) => {
                let beside = described.index(lease, name, version, &member.descriptor).await?;
                let manifest = self.write_manifest(member, after, subject, beside.annotation()).await?;
                Renewed { manifest, bytes, beside: Some(beside) }
            }
            // The index names the manifest.
            (Some(described), Version::One) => {
                let manifest = self.write_manifest(member, after, subject, None).await?;
                let beside = described.index(lease, name, version, &manifest).await?;
                Renewed { manifest, bytes, beside: Some(beside) }
            }
        })
    }

    /// The layers of one manifest, made anew and proved to be what its config says.
    async fn layers(&mut self, member: &Member) -> Result<After, EngineError> {
        let manifest = &member.manifest;
        let unchanged = || After { layers: manifest.layers.clone(), ..After::default() };
        // An artifact's layers are no tars of ours.
        if matches!(self.how, Converting::Nothing)
            || !media::is_config(&manifest.config.media_type)
            || is_attestation(&member.descriptor)
        {
            return Ok(unchanged());
        }
        let (lease, board, name) = (self.lease, self.board, self.name);
        let (space, described, owner) = (lease.space.clone(), manifest.config.clone(), name.to_owned());
        let bytes = blocking(move || stored::config(&space, &owner, &described)).await?;
        let config = ImageConfig::parse(&bytes, manifest.layers.len()).map_err(|source| {
            EngineError::Config { reference: name.to_owned(), digest: manifest.config.digest, source }
        })?;
        let diff_ids = &config.rootfs.diff_ids;
        match &self.how {
            Converting::Nothing => Ok(unchanged()),
            Converting::Recompress(how) => {
                let layers = recompress(lease, board, name, &manifest.layers, diff_ids, how).await?;
                Ok(After { layers, ..After::default() })
            }
            Converting::Describe(_) => {
                let described = soci::describe(lease, board, name, member, &config).await?;
                Ok(After { described, ..unchanged() })
            }
            Converting::Rewrite(how) => {
                let (mut layers, mut after) = (Vec::new(), Vec::new());
                for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
                    let rewritten = match self.done.get(&layer.digest) {
                        Some(rewritten) => rewritten.clone(),
                        None => lazy::rewrite(lease, board, name, layer, *diff_id, how).await?,
                    };
                    self.done.insert(layer.digest, rewritten.clone());
                    layers.push(rewritten.layer);
                    after.push(rewritten.diff_id);
                }
                let config = match after == *diff_ids {
                    true => None,
                    false => Some(write_config(lease, &manifest.config, &bytes, &after).await?),
                };
                Ok(After { layers, config, described: None })
            }
        }
    }

    async fn write_manifest(
        &self,
        member: &Member,
        after: After,
        subject: Option<Descriptor>,
        annotation: Option<(&'static str, String)>,
    ) -> Result<Descriptor, EngineError> {
        let (space, name, member) = (self.lease.space.clone(), self.name.to_owned(), member.clone());
        let oci = self.oci;
        blocking(move || {
            let bytes = stored::bytes(&space, &name, &member.descriptor)?;
            let changes = documents::Changes {
                before: &member.manifest.layers,
                after: &after.layers,
                config: after.config.as_ref(),
                subject: subject.as_ref(),
                annotations: annotation.as_slice(),
            };
            let media_type = &member.descriptor.media_type;
            let (media_type, written) = documents::manifest(media_type, &bytes, &changes, oci);
            store(&space, &name, &member.descriptor, media_type, &written)
        })
        .await
    }
}

/// Stores the config with other diff IDs.
async fn write_config(
    lease: &WorkLease,
    before: &Descriptor,
    bytes: &[u8],
    diff_ids: &[DiffId],
) -> Result<Descriptor, EngineError> {
    let written = documents::config(bytes, diff_ids);
    let mut after = before.clone();
    (after.digest, after.size) = (Digest::of(&written), written.len() as u64);
    let (space, config) = (lease.space.clone(), after.clone());
    blocking(move || store_small(&space, &config, &written, Labels::new())).await?;
    Ok(after)
}
